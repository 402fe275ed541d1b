//! numpy, pandas, matplotlib and their like: they work, and they open no hole.

use libtest_mimic::Trial;
use vllm_responses_actors::interpreter::bundle::Bundle;
use vllm_responses_actors::interpreter::messages::Executed;

use crate::stage::{Stage, bundle, raised, run, sized};
use crate::{escape, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("full_science_a_table_and_its_plot", table_and_plot),
        trial("full_science_pictures_of_every_kind", pictures),
        trial("full_science_libraries_work", libraries),
        trial("full_science_random_numbers_differ", seeds),
        trial("full_science_memory_is_bounded", memory),
        trial("full_science_no_probe_gets_out", || {
            escape::all_probes(&science());
        }),
    ]
}

fn science() -> Bundle {
    bundle("TEST_INTERPRETER_SCIENCE_BUNDLE").unwrap()
}

/// Decodes a picture: width, height and the bytes of its pixels, checked against each other.
fn decode(executed: &Executed, number: usize) -> (usize, usize) {
    let bytes = base64(executed.images.get(number).expect("a picture"));
    let mut chunks = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("a PNG");
    let (mut size, mut pixels, mut ended) = ((0, 0), 0, false);
    while let [a, b, c, d, k0, k1, k2, k3, rest @ ..] = chunks {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        let (data, after) = rest.split_at(length);
        let number = |at: usize| {
            let four: [u8; 4] = data.get(at..at + 4).unwrap().try_into().unwrap();
            usize::try_from(u32::from_be_bytes(four)).unwrap()
        };
        match [*k0, *k1, *k2, *k3] {
            kind if &kind == b"IHDR" => size = (number(0), number(4)),
            kind if &kind == b"IDAT" => pixels += length,
            kind if &kind == b"IEND" => ended = true,
            _ => {}
        }
        chunks = after.get(4..).unwrap();
    }
    assert!(ended && pixels > 0 && chunks.is_empty());
    size
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}

fn table_and_plot() {
    run(async {
        let stage = Stage::on(&science(), sized(2, 4));
        stage.until(|status| status.warm == 1).await;
        let code = "\
import pandas as pd
import matplotlib.pyplot as plt
table = pd.DataFrame({'city': ['Rome', 'Oslo'], 'people': [2.8, 0.7]})
table.plot.bar(x='city', y='people')
plt.show()
float(table['people'].sum())";
        let executed = stage.fresh(code).await;
        assert_eq!(executed.error, None);
        assert!(executed.logs.ends_with("3.5\n"), "{}", executed.logs);
        assert_eq!(executed.images.len(), 1);
        let (width, height) = decode(&executed, 0);
        assert!(width > 300 && height > 300);
        let again = stage.again(&executed, "table").await;
        assert!(again.logs.contains("Oslo"), "{}", again.logs);
        assert!(again.images.is_empty(), "the figure was closed");
    });
}

fn pictures() {
    run(async {
        let stage = Stage::on(&science(), sized(2, 4));
        let first = stage
            .fresh("from PIL import Image\nImage.new('RGB', (8, 6), 'red')")
            .await;
        assert_eq!(decode(&first, 0), (8, 6));
        assert_eq!(first.logs, "");
        let shown = stage.again(&first, "Image.new('L', (3, 4)).show()").await;
        assert_eq!(decode(&shown, 0), (3, 4));
        let figure =
            "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])\nfig";
        let figure = stage.again(&first, figure).await;
        assert_eq!(figure.images.len(), 1, "once, not twice");
        decode(&figure, 0);
        // Without show(), as in a notebook.
        let implicit = stage.again(&first, "plt.plot([3, 1]);").await;
        decode(&implicit, 0);
        let many = "for i in range(12):\n    plt.figure()\n    plt.plot([i])\nplt.show()";
        let many = stage.again(&first, many).await;
        assert_eq!((many.images.len(), many.truncated), (10, true));
        let huge = "import os\nImage.frombytes('RGB', (1600, 1600), os.urandom(1600 * 1600 * 3))";
        let huge = stage.again(&first, huge).await;
        assert_eq!(
            (huge.images.len(), huge.truncated, huge.error),
            (0, true, None)
        );
    });
}

fn libraries() {
    run(async {
        let stage = Stage::on(&science(), sized(1, 3));
        let first = stage
            .fresh("import numpy as np\nnp.linalg.inv(np.eye(2) * 2)[0, 0]")
            .await;
        assert_eq!(first.error, None);
        assert!(first.logs.contains("0.5"), "{}", first.logs);
        let csv = "import pandas as pd\nopen('t.csv', 'w').write('a,b\\n1,2\\n3,4\\n')\n\
                   int(pd.read_csv('t.csv').a.sum())";
        assert_eq!(stage.again(&first, csv).await.logs, "4\n");
        let root =
            "import scipy.optimize as o\nbool(abs(o.brentq(lambda x: x - 1, 0, 3) - 1) < 1e-6)";
        let executed = stage.again(&first, root).await;
        assert_eq!((executed.error, executed.logs.as_str()), (None, "True\n"));
    });
}

fn seeds() {
    run(async {
        let stage = Stage::on(&science(), sized(2, 4));
        stage.until(|status| status.warm == 1).await;
        let draw =
            "import numpy as np\nfloat(np.random.rand()), float(np.random.default_rng().random())";
        let one = stage.fresh(draw).await.logs;
        stage.until(|status| status.warm == 1).await;
        let two = stage.fresh(draw).await.logs;
        for (a, b) in one.split(',').zip(two.split(',')) {
            assert_ne!(a, b);
        }
    });
}

fn memory() {
    run(async {
        let stage = Stage::on(&science(), sized(1, 2));
        let first = stage
            .fresh("import numpy as np\nx = np.ones(200_000_000)")
            .await;
        assert!(raised(&first).contains("MemoryError"), "{:?}", first.error);
        assert_eq!(stage.again(&first, "1").await.logs, "1\n");
    });
}
