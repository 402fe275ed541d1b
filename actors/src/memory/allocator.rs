//! The program's allocator: mimalloc for what is small, mappings of the system for what is large.
//!
//! mimalloc keeps a freed block for the thread that made it, until that thread allocates again. Large
//! texts are read on one thread, parsed on another and freed on a third, so threads that wait for work
//! held gigabytes of nothing (measured: 24 MB for each continuation of a 24 MB conversation in SQLite).
//! A mapping is given back at once by whichever thread frees it, and grows without being copied.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;

use mimalloc::MiMalloc;
use nix::libc;

/// Blocks of this size and above are mapped, as the C library does it. Below it, what the kernel takes for
/// clearing pages costs more than what may be kept. At 1 MiB the last chunks of pictures stayed: 323 MiB
/// grown after 48 reads of 12 pictures.
const MAPPED: usize = 128 << 10;
/// No page is smaller, and mappings begin with a page. Larger alignments are mimalloc's.
const PAGE: usize = 4096;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

/// Whether a block of this layout is a mapping. It is asked again when the block is freed.
fn is_mapped(layout: Layout) -> bool {
    layout.size() >= MAPPED && layout.align() <= PAGE
}

/// A mapping of this size, all zeros; null when the system has none.
fn map(size: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a private anonymous mapping at an address of the kernel's choice touches nothing else.
    let at = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        null_mut()
    } else {
        at.cast()
    }
}

// SAFETY: each block is freed and grown by what made it, since the layout that decides is the one it was
// made with. Mappings begin with a page and are at least as long as asked for.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            return map(layout.size());
        }
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            return map(layout.size());
        }
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_mapped(layout) {
            // SAFETY: `block` is a mapping of this size, which nobody uses any more.
            unsafe { libc::munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: as the caller promises.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is a valid one for this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_mapped(layout), is_mapped(new)) {
            (true, true) => {
                // SAFETY: `block` is a mapping of the old size; its pages move, their contents stay.
                let at = unsafe {
                    libc::mremap(block.cast(), layout.size(), size, libc::MREMAP_MAYMOVE)
                };
                if at == libc::MAP_FAILED {
                    null_mut()
                } else {
                    at.cast()
                }
            }
            // SAFETY: as the caller promises.
            (false, false) => unsafe { MiMalloc.realloc(block, layout, size) },
            (true, false) | (false, true) => {
                // SAFETY: the new block is another one, and both have at least as many bytes as are copied.
                unsafe {
                    let moved = self.alloc(new);
                    if !moved.is_null() {
                        let kept = layout.size().min(size);
                        std::ptr::copy_nonoverlapping(block, moved, kept);
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// A block that tells what it is filled with.
    struct Block(*mut u8, Layout);

    // SAFETY: it is owned, and moves with its owner.
    unsafe impl Send for Block {}

    impl Block {
        fn new(size: usize) -> Self {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the size is not zero.
            let at = unsafe { Allocator.alloc(layout) };
            assert!(!at.is_null());
            let mut block = Self(at, layout);
            block.fill(0);
            block
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the block has so many bytes, which were all written.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1.size()) }
        }

        /// From this place on, each byte by its place.
        fn fill(&mut self, from: usize) {
            // SAFETY: the block has so many bytes.
            unsafe { std::ptr::write_bytes(self.0.add(from), 0, self.1.size() - from) };
            for (place, byte) in self.bytes().iter_mut().enumerate().skip(from) {
                *byte = u8::try_from(place % 251).unwrap();
            }
        }

        fn resize(&mut self, size: usize) {
            let kept = self.1.size().min(size);
            // SAFETY: the block was made with this layout.
            self.0 = unsafe { Allocator.realloc(self.0, self.1, size) };
            assert!(!self.0.is_null());
            self.1 = Layout::from_size_align(size, 8).unwrap();
            let is_kept = |(place, byte): (usize, &u8)| usize::from(*byte) == place % 251;
            assert!(self.bytes().iter().enumerate().take(kept).all(is_kept));
            self.fill(kept);
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: the block was made with this layout.
            unsafe { Allocator.dealloc(self.0, self.1) }
        }
    }

    #[test]
    fn blocks_keep_their_bytes_across_the_border() {
        let mut block = Block::new(100);
        for size in [
            MAPPED - 1,
            MAPPED,
            3 * MAPPED + 5,
            MAPPED + 1,
            MAPPED - 1,
            10,
            5 * MAPPED,
            7,
        ] {
            block.resize(size);
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_and_large_alignments_hold() {
        for (size, align) in [(100, 8), (2 * MAPPED, 8), (2 * MAPPED, 4 * PAGE)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not zero, and the block is freed with its layout.
            unsafe {
                let at = Allocator.alloc_zeroed(layout);
                assert_eq!(at.addr() % align, 0);
                assert!(
                    std::slice::from_raw_parts(at, size)
                        .iter()
                        .all(|byte| *byte == 0)
                );
                Allocator.dealloc(at, layout);
            }
        }
    }

    /// Bytes of this process in memory.
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE
    }

    #[test]
    fn what_a_waiting_thread_made_and_another_freed_is_given_back() {
        const EACH: usize = 200 << 10;
        const OF_EACH: usize = 32;
        let before = resident();
        let makers: Vec<_> = (0..8)
            .map(|_| {
                let (blocks, made) = mpsc::sync_channel(0);
                let (end, wait) = mpsc::channel::<()>();
                let maker = thread::spawn(move || {
                    for _ in 0..OF_EACH {
                        blocks.send(Block::new(EACH)).unwrap();
                    }
                    // As a thread of a pool does.
                    let _dropped = wait.recv();
                });
                (made, end, maker)
            })
            .collect();
        let blocks: Vec<Block> = makers
            .iter()
            .flat_map(|(made, ..)| made.iter().take(OF_EACH))
            .collect();
        assert!(resident() > before + 7 * OF_EACH * EACH);
        drop(blocks);
        let kept = resident().saturating_sub(before);
        assert!(kept < OF_EACH * EACH, "{kept} bytes are kept");
        for (_, end, maker) in makers {
            drop(end);
            maker.join().unwrap();
        }
    }
}
