//! Pyodide's list of packages: which wheels `science` needs, and their checksums.
//!
//! The list is a file of the npm package, so its checksums are as good as that one's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::error::SetupError;

/// `pyodide-lock.json`, the part that counts here.
#[derive(Debug, Deserialize)]
struct List {
    packages: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    file_name: String,
    sha256: String,
    #[serde(default)]
    depends: Vec<String>,
}

/// A wheel, or a zip of shared libraries that wheels need, to be had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wheel {
    /// A plain file name that ends in `.whl` or `.zip`.
    pub(super) file_name: String,
    /// Lower-case hexadecimal.
    pub(super) sha256: String,
}

/// The wheels of these packages and of all that they depend on, by file name.
pub(super) fn wheels(list: &[u8], asked: &[String]) -> Result<Vec<Wheel>, SetupError> {
    let bad = |reason: String| SetupError::PackageList(reason);
    let list: List = serde_json::from_slice(list).map_err(|error| bad(error.to_string()))?;
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = asked.iter().map(|name| normal(name)).collect();
    let mut wheels = Vec::new();
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        let entry = list
            .packages
            .get(&name)
            .ok_or_else(|| bad(format!("it lacks {name}")))?;
        if !is_wheel(&entry.file_name) || !is_sha256(&entry.sha256) {
            return Err(bad(format!("{name} has no wheel with a checksum")));
        }
        open.extend(entry.depends.iter().map(|name| normal(name)));
        wheels.push(Wheel {
            file_name: entry.file_name.clone(),
            sha256: entry.sha256.clone(),
        });
        seen.insert(name);
    }
    wheels.sort();
    Ok(wheels)
}

/// Package names are the same whatever their case and dashes.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// A name that is safe as a file and in a URL. A `+` of a local version is common.
fn is_wheel(name: &str) -> bool {
    [".whl", ".zip"]
        .iter()
        .any(|ending| name.strip_suffix(ending).is_some())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &str, &str)]) -> Vec<u8> {
        let entries: Vec<String> = entries
            .iter()
            .map(|(name, file, depends)| {
                let sha256 = "0".repeat(64);
                format!(
                    r#""{name}":{{"file_name":"{file}","sha256":"{sha256}","depends":[{depends}],"x":1}}"#
                )
            })
            .collect();
        format!(r#"{{"info":{{}},"packages":{{{}}}}}"#, entries.join(",")).into_bytes()
    }

    fn names(list: &[u8], asked: &[&str]) -> Vec<String> {
        let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
        let found = wheels(list, &asked).unwrap();
        found.into_iter().map(|wheel| wheel.file_name).collect()
    }

    #[test]
    fn what_is_needed_comes_with_what_is_asked_for_once() {
        let list = list(&[
            ("pandas", "pandas-3.whl", r#""numpy","python_dateutil""#),
            ("python-dateutil", "dateutil-2.whl", r#""six""#),
            ("six", "six-1.whl", r#""Pandas""#),
            ("numpy", "numpy-2+x.whl", ""),
            ("scipy", "scipy-1.whl", r#""numpy""#),
        ]);
        assert_eq!(
            names(&list, &["pandas", "numpy"]),
            [
                "dateutil-2.whl",
                "numpy-2+x.whl",
                "pandas-3.whl",
                "six-1.whl"
            ]
        );
    }

    #[test]
    fn a_list_that_cannot_be_trusted_is_refused() {
        for bad in [
            "../numpy.whl",
            "a/numpy.whl",
            "numpy.tar",
            ".whl",
            "num py.whl",
        ] {
            let list = list(&[("numpy", bad, "")]);
            assert!(wheels(&list, &["numpy".to_owned()]).is_err(), "{bad}");
        }
        let missing = list(&[("numpy", "numpy.whl", r#""absent""#)]);
        let error = wheels(&missing, &["numpy".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("lacks absent"), "{error}");
        assert!(wheels(b"[]", &[]).is_err());
    }
}
