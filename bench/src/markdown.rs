//! Puts what was measured between the markers of the pages that quote it: no figure is typed.

use std::fs;

use crate::report::Report;
use crate::table;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Updates the pages in the current folder.
pub(crate) fn update(report: &Report) -> Result<(), String> {
    for (page, figures) in [
        ("docs/performance.md", table::whole(report)),
        ("README.md", table::short(report)),
    ] {
        let text = fs::read_to_string(page).map_err(|error| format!("no {page}: {error}"))?;
        let text = replaced(&text, &figures).ok_or(format!("{page} has no `{BEGIN}`, `{END}`"))?;
        fs::write(page, text).map_err(|error| format!("cannot write {page}: {error}"))?;
    }
    Ok(())
}

/// The page with other figures between the markers; `None` without them.
fn replaced(page: &str, figures: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&page, "\nnew\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replaced(&new, "new"), Some(new.clone()));
        assert_eq!(replaced("a", "new"), None);
    }
}
