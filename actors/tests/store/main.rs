//! The store as others see it: four messages to the cache's door, real SQLite files behind it.
//!
//! One binary, so that it links once. `fixture` makes records and opens stores; the other modules
//! each hold the cases of one promise.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod many;
#[cfg(test)]
mod private;
