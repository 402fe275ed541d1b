//! F8: an envelope opens for whom it was sealed, as it was sealed, and not otherwise.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use vllm_responses_protocol::ids::{CountingIds, Owner};
use vllm_responses_protocol::seal::{Bond, SealKeys, Unopened};

/// The bytes are an envelope that nobody sealed; then a text that is sealed, damaged at a place of
/// theirs, and opened.
pub fn check(bytes: &[u8]) {
    let keys = SealKeys::new([7; 32], &[[8; 32]], None);
    let (owner, other) = (Owner::new("o"), Owner::new("p"));
    let bond = Bond {
        owner: &owner,
        model: "m",
    };
    let raw = String::from_utf8_lossy(bytes);
    let foreign = || Err(Unopened::Foreign);
    assert_eq!(
        keys.open(&raw, bond, 0),
        foreign(),
        "an envelope from nowhere"
    );
    assert_eq!(
        keys.open(&URL_SAFE_NO_PAD.encode(bytes), bond, 0),
        foreign()
    );

    let sealed = keys
        .seal(&raw, bond, 1_000, &mut CountingIds::default())
        .expect("a key is there");
    assert_eq!(keys.open(&sealed, bond, 2_000).as_deref(), Ok(&*raw));
    for strange in [
        (
            Bond {
                owner: &other,
                ..bond
            },
            Unopened::Foreign,
        ),
        (Bond { model: "n", ..bond }, Unopened::OtherModel),
    ] {
        assert_eq!(
            keys.open(&sealed, strange.0, 2_000),
            Err(strange.1),
            "for somebody else"
        );
    }
    let mut damaged = URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
    let place = bytes.iter().fold(0_usize, |at, byte| {
        at.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let (at, bit) = (place % damaged.len(), place % 8);
    damaged[at] ^= 1 << bit;
    let damaged = URL_SAFE_NO_PAD.encode(&damaged);
    assert_eq!(
        keys.open(&damaged, bond, 2_000),
        foreign(),
        "damaged at {at}"
    );
}
