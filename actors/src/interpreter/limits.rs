//! Every limit of the code interpreter, in one place (decision 29).

use std::time::Duration;

/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// How long one call may run.
pub const WALL: Duration = Duration::from_secs(30);
/// Memory of Python; reaching it is a clean `MemoryError`.
pub const PYTHON_MEMORY_MIB: u64 = 768;
/// Memory of the whole process: beyond it allocations fail, which few programs outlive.
pub const PROCESS_DATA_MIB: u64 = 1536;
/// What V8 reserves for code at its start and the kernel counts as data, though next to none of it is
/// ever touched (measured). Added to [`PROCESS_DATA_MIB`], else it would be taken from it.
pub const RESERVED_CODE_MIB: u64 = 512;
/// Heap of JavaScript.
pub const V8_HEAP_MIB: u64 = 512;
/// Text that one call may print; the rest is dropped and the call marked as truncated.
pub const OUTPUT_BYTES: usize = 1024 * 1024;
/// Pictures of one call; further ones are dropped likewise.
pub const IMAGES: usize = 10;
/// The largest picture.
pub const IMAGE_BYTES: usize = 5 * 1024 * 1024;
/// Open descriptors of the process.
pub const OPEN_FILES: u64 = 64;
/// Threads of the process. The runtime has about one for each processor and at most two dozen.
pub const TASKS: u64 = 64;
/// Hundredths of a processor: Python runs on one thread, compiling and collecting beside it.
pub const CPU_HUNDREDTHS: u64 = 200;
/// The longest code that is taken.
pub const CODE_BYTES: usize = 1024 * 1024;

/// The largest frame from a worker.
pub const FRAME_BYTES: usize = 32 * 1024 * 1024;
/// All frames of one call: the pictures in base64, the text in JSON with every character escaped, and
/// what frames add to each.
pub const CALL_BYTES: usize = 96 * 1024 * 1024;
/// How deep the JSON of a frame nests; ours needs two levels.
pub const JSON_DEPTH: usize = 4;
/// The longest error text that is kept.
pub const ERROR_BYTES: usize = 64 * 1024;

/// How long a worker may take from its start to being usable.
pub const START: Duration = Duration::from_secs(60);
/// How long it may take to import what calls will want.
pub const WARM: Duration = Duration::from_secs(60);

/// How long an interpreter may go on after it has answered a call.
pub const REST: Duration = Duration::from_secs(1);
/// Processor time that one without a call may use before it is ended: the runtime's own housekeeping
/// takes some tenths of a second.
pub const REST_CPU: Duration = Duration::from_secs(2);

/// Limits of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// How long it may run, from the moment that an interpreter has it.
    pub wall: Duration,
    /// Text it may print; the rest is dropped.
    pub output_bytes: usize,
    /// Pictures it may show; further ones are dropped.
    pub images: usize,
    /// The largest picture.
    pub image_bytes: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            wall: WALL,
            output_bytes: OUTPUT_BYTES,
            images: IMAGES,
            image_bytes: IMAGE_BYTES,
        }
    }
}

impl CallLimits {
    /// Whether the frames of a call at these limits fit into what is taken of a worker
    /// ([`FRAME_BYTES`], [`CALL_BYTES`]): pictures in base64, text with every character escaped.
    pub fn fit(&self) -> bool {
        let picture = self.image_bytes.saturating_mul(4) / 3;
        let pictures = picture.saturating_mul(self.images);
        let text = self.output_bytes.saturating_mul(6);
        picture < FRAME_BYTES && pictures.saturating_add(text) < CALL_BYTES
    }
}
