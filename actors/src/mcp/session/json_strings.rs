//! The texts within a value that is JSON, as the credentials of a service account are. Pure.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Every text of a JSON object or list with the name of its member; none where the value is no JSON.
pub(super) fn of(value: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if !value.trim_start().starts_with(['{', '[']) {
        return found;
    }
    let texts = Texts {
        name: "",
        found: &mut found,
    };
    let mut reader = serde_json::Deserializer::from_str(value);
    // What was found before the JSON broke off may be a secret as well.
    drop(texts.deserialize(&mut reader));
    found
}

struct Texts<'a> {
    name: &'a str,
    found: &'a mut Vec<(String, String)>,
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.found.push((self.name.to_owned(), text.to_owned()));
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { name, found } = self;
        while list
            .next_element_seed(Texts {
                name,
                found: &mut *found,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            let found = &mut *self.found;
            // The name of a list or an object holds for what is in it unless that has one of its own.
            members.next_value_seed(Texts { name: &name, found })?;
        }
        Ok(())
    }
}
