//! A disk of the test's own under SQLite: it fails when told to, and knows what was synced.
//!
//! SQLite reaches files through a table of functions, its VFS. The one here stands in front of the real
//! one and is the default from its first use on; files outside the folder of a [`Disk`] pass through.
//! The memory that the connections of a database share is not a file that has to last, and passes too.

#![expect(
    unsafe_code,
    clippy::disallowed_types,
    reason = "SQLite's functions are C's, and are called from any thread"
)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libsqlite3_sys as ffi;

/// What a fault can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Open,
    Read,
    Write,
    Sync,
}

impl Op {
    fn error(self) -> c_int {
        match self {
            Self::Open => ffi::SQLITE_CANTOPEN,
            Self::Read => ffi::SQLITE_IOERR_READ,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
        }
    }
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    Once,
    /// Until [`Disk::heal`].
    On,
}

struct Fault {
    op: Op,
    /// Operations that still pass.
    passing: u64,
    lasts: Lasts,
}

/// The files that a loss of power would leave, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// Operations that failed.
    failed: u64,
    /// Contents at the last sync.
    synced: Files,
    /// Writes since then, oldest first.
    unsynced: HashMap<String, Vec<(u64, Vec<u8>)>>,
}

/// The disk of one folder.
pub(crate) struct Disk {
    folder: PathBuf,
    state: Mutex<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disks in use.
fn disks() -> &'static Mutex<Vec<Arc<Disk>>> {
    static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());
    &DISKS
}

impl Disk {
    /// A disk under this folder, whose files are not open yet.
    pub(crate) fn under(folder: &Path) -> Arc<Self> {
        install();
        let disk = Arc::new(Self {
            folder: folder.canonicalize().unwrap(),
            state: Mutex::default(),
        });
        lock(disks()).push(Arc::clone(&disk));
        disk
    }

    /// From now on the nth operation of this kind fails, and those after it if it lasts.
    pub(crate) fn fail(&self, op: Op, nth: u64, lasts: Lasts) {
        lock(&self.state).fault = Some(Fault {
            op,
            passing: nth - 1,
            lasts,
        });
    }

    /// No more faults; says how many operations failed.
    pub(crate) fn heal(&self) -> u64 {
        let mut state = lock(&self.state);
        state.fault = None;
        std::mem::take(&mut state.failed)
    }

    /// What is left when the power goes now and nothing that was not synced has reached the disk.
    pub(crate) fn synced(&self) -> Files {
        lock(&self.state).synced.clone()
    }

    /// As [`synced`](Self::synced), but every second of the other writes has reached it.
    pub(crate) fn torn(&self) -> Files {
        let state = lock(&self.state);
        let mut files = state.synced.clone();
        for (name, writes) in &state.unsynced {
            let file = files.entry(name.clone()).or_default();
            for (at, bytes) in writes.iter().skip(1).step_by(2) {
                let begin = usize::try_from(*at).unwrap();
                file.resize(file.len().max(begin + bytes.len()), 0);
                file[begin..begin + bytes.len()].copy_from_slice(bytes);
            }
        }
        files
    }

    /// Whether this operation fails.
    fn fails(&self, op: Op) -> bool {
        let mut state = lock(&self.state);
        let Some(fault) = state.fault.as_mut().filter(|fault| fault.op == op) else {
            return false;
        };
        if fault.passing > 0 {
            fault.passing -= 1;
            return false;
        }
        if fault.lasts == Lasts::Once {
            state.fault = None;
        }
        state.failed += 1;
        true
    }

    fn note_write(&self, name: &str, at: u64, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let writes = state.unsynced.entry(name.to_owned()).or_default();
        writes.push((at, bytes.to_vec()));
    }

    fn note_sync(&self, name: &str) {
        let content = std::fs::read(self.folder.join(name)).unwrap();
        let mut state = lock(&self.state);
        state.synced.insert(name.to_owned(), content);
        state.unsynced.remove(name);
    }
}

/// Where an open file belongs.
struct Seat {
    disk: Arc<Disk>,
    name: String,
}

/// What SQLite has for an open file. The real VFS's own stands behind it.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// Null where the file is nobody's.
    seat: *mut Seat,
}

/// The real VFS, and its functions for files.
static REAL: OnceLock<Real> = OnceLock::new();

struct Real(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's VFS objects live as long as the process and are used from every thread.
unsafe impl Send for Real {}
// SAFETY: the same.
unsafe impl Sync for Real {}

fn real_vfs() -> *mut ffi::sqlite3_vfs {
    REAL.get().unwrap().0
}

/// Temporary files that were opened, on any disk: SQLite gives them no name.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// How many temporary files were opened so far.
pub(crate) fn temporary_files() -> u64 {
    TEMPORARY.load(Ordering::Relaxed)
}

/// Makes this VFS the default, once.
fn install() {
    REAL.get_or_init(|| {
        // SAFETY: the default VFS is there after SQLite's own start, and the copy that is registered
        // is never freed.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            let real = ffi::sqlite3_vfs_find(ptr::null());
            let mut ours = ptr::read(real);
            ours.zName = c"test-disk".as_ptr();
            ours.szOsFile += c_int::try_from(size_of::<File>()).unwrap();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            let ours = Box::into_raw(Box::new(ours));
            assert_eq!(ffi::sqlite3_vfs_register(ours, 1), ffi::SQLITE_OK);
            Real(real)
        }
    });
}

/// The disk that a path is on, and its name there.
fn seat_of(path: *const c_char) -> Option<(Arc<Disk>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite gives file names that end in a zero.
    let path = Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?);
    let disks = lock(disks());
    let disk = disks.iter().find(|disk| path.starts_with(&disk.folder))?;
    let name = path.file_name()?.to_str()?.to_owned();
    Some((Arc::clone(disk), name))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room for `szOsFile` bytes, of which the first are ours.
    unsafe {
        let ours = file.cast::<File>();
        (*ours).base.pMethods = ptr::null();
        (*ours).seat = ptr::null_mut();
        if path.is_null() {
            TEMPORARY.fetch_add(1, Ordering::Relaxed);
        }
        let seat = seat_of(path);
        if seat.as_ref().is_some_and(|(disk, _)| disk.fails(Op::Open)) {
            return Op::Open.error();
        }
        let vfs = real_vfs();
        let code = (*vfs).xOpen.unwrap()(vfs, path, behind(file), flags, out_flags);
        if code == ffi::SQLITE_OK {
            (*ours).base.pMethods = &raw const METHODS;
            if let Some((disk, name)) = seat {
                (*ours).seat = Box::into_raw(Box::new(Seat { disk, name }));
            }
        }
        code
    }
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    sync_folder: c_int,
) -> c_int {
    if let Some((disk, name)) = seat_of(path) {
        let mut state = lock(&disk.state);
        state.synced.remove(&name);
        state.unsynced.remove(&name);
    }
    let vfs = real_vfs();
    // SAFETY: the arguments are SQLite's own.
    unsafe { (*vfs).xDelete.unwrap()(vfs, path, sync_folder) }
}

/// The real VFS's file, which stands behind ours.
unsafe fn behind(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the room was asked for in `szOsFile`.
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

unsafe fn seat<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a Seat> {
    // SAFETY: a file has its seat from `open` to `close`.
    unsafe { (*file.cast::<File>()).seat.as_ref() }
}

/// Passes a call on to the real VFS's file.
macro_rules! pass {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($argument: $type),*) -> $result {
            // SAFETY: `file` is one that `open` opened, and its table has what ours has.
            unsafe {
                let real = behind(file);
                (*(*real).pMethods).$method.unwrap()(real, $($argument),*)
            }
        })*
    };
}

pass! {
    real_close = xClose() -> c_int;
    real_read = xRead(buffer: *mut c_void, length: c_int, at: ffi::sqlite3_int64) -> c_int;
    real_write = xWrite(bytes: *const c_void, length: c_int, at: ffi::sqlite3_int64) -> c_int;
    real_truncate = xTruncate(size: ffi::sqlite3_int64) -> c_int;
    real_sync = xSync(flags: c_int) -> c_int;
    file_size = xFileSize(size: *mut ffi::sqlite3_int64) -> c_int;
    lock_file = xLock(level: c_int) -> c_int;
    unlock_file = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(result: *mut c_int) -> c_int;
    file_control = xFileControl(what: c_int, argument: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(at: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier() -> ();
    shm_unmap = xShmUnmap(remove: c_int) -> c_int;
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once.
    unsafe {
        let ours = file.cast::<File>();
        let seat = std::mem::replace(&mut (*ours).seat, ptr::null_mut());
        if !seat.is_null() {
            drop(Box::from_raw(seat));
        }
        real_close(file)
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        if seat(file).is_some_and(|seat| seat.disk.fails(Op::Read)) {
            return Op::Read.error();
        }
        real_read(file, buffer, length, at)
    }
}

/// A write that fails has written its first half.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: `bytes` has `length` bytes.
    unsafe {
        let Some(seat) = seat(file) else {
            return real_write(file, bytes, length, at);
        };
        let fails = seat.disk.fails(Op::Write);
        let length = if fails { length / 2 } else { length };
        let size = usize::try_from(length).unwrap();
        let written = std::slice::from_raw_parts(bytes.cast::<u8>(), size);
        seat.disk
            .note_write(&seat.name, at.cast_unsigned(), written);
        let code = real_write(file, bytes, length, at);
        if fails { Op::Write.error() } else { code }
    }
}

/// Counts as written, not as synced, as every change of a file.
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe { real_truncate(file, size) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        let Some(seat) = seat(file) else {
            return real_sync(file, flags);
        };
        if seat.disk.fails(Op::Sync) {
            return Op::Sync.error();
        }
        // The disk is not waited for: what a loss of power leaves is worked out here.
        seat.disk.note_sync(&seat.name);
        ffi::SQLITE_OK
    }
}

/// The second version of the table: without the third's mapped files every byte comes through here.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock_file),
    xUnlock: Some(unlock_file),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
