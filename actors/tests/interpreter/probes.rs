//! The attempts to get out, each a few lines of Python as a model might write them.
//!
//! A probe prints `REACHED` with its evidence when it got somewhere. Before it stands [`PRELUDE`], and
//! in it `FOLDER`, `TCP`, `UDP`, `PARENT` and `BUNDLE` are replaced: a folder on the host with a file
//! `secret` and a UNIX socket `unix`, listening ports, the gateway's process id, the bundle.

/// One attempt.
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) code: &'static str,
}

const fn probe(name: &'static str, code: &'static str) -> Probe {
    Probe { name, code }
}

/// Ways from Python to JavaScript: `run_text` makes code of a text, `run_async` waits for its promise.
pub(crate) const PRELUDE: &str = r#"
import js, pyodide_js
def routes():
    yield lambda text: js.eval(text)
    yield lambda text: __import__("pyodide.code").code.run_js(text)
    yield lambda text: js.Function.new("return " + text)()
    yield lambda text: js.Object.constructor("return " + text)()
    yield lambda text: pyodide_js.runPython.constructor("return " + text)()
    yield lambda text: pyodide_js.FS.open.constructor("return " + text)()
    yield lambda text: js.Promise.prototype.then.constructor("return " + text)()
    yield lambda text: pyodide_js._api.runPython.constructor("return " + text)()
def run_text(text):
    for route in routes():
        try:
            return route(text)
        except BaseException:
            pass
    raise PermissionError("no way to JavaScript")
async def run_async(text):
    return await run_text("(async () => { " + text + " })()")
def reached(what):
    print("REACHED", what)
"#;

/// A WebAssembly module that asks the loader to make a function of its own text, which closes that
/// function early and goes on: the loader of dynamic libraries makes code of text.
const SIDE_MODULE: &str = r#"
import ctypes
text = b"}; Deno.writeTextFileSync('FOLDER/touched', ''); {\0"
def section(kind, body): return bytes([kind]) + number(len(body)) + body
def number(n): return bytes([n & 127 | 128, n >> 7]) if n > 127 else bytes([n])
def signed(n): return bytes([n & 127 | 128, n >> 7 & 127]) if n > 63 else bytes([n])
def name(text): return number(len(text)) + text
dylink = section(0, name(b"dylink.0") + bytes([1, 5]) + number(1024)[:2] + bytes([0, 0, 0]))
imports = section(2, bytes([2]) + name(b"env") + name(b"memory") + bytes([2, 0, 1])
    + name(b"env") + name(b"__memory_base") + bytes([3, 0x7F, 0]))
globs = section(6, bytes([2, 0x7F, 0, 0x41, 0, 0x0B, 0x7F, 0, 0x41]) + signed(len(text)) + bytes([0x0B]))
exports = section(7, bytes([2]) + name(b"__start_em_asm") + bytes([3, 1])
    + name(b"__stop_em_asm") + bytes([3, 2]))
data = section(11, bytes([1, 0, 0x23, 0, 0x0B]) + name(text))
open("/tmp/x.so", "wb").write(b"\0asm\1\0\0\0" + dylink + imports + globs + exports + data)
ctypes.CDLL("/tmp/x.so")
print("loaded")
"#;

/// The attempts, in the order of the table in the design.
pub(crate) const PROBES: &[Probe] = &[
    probe(
        "01_os_system",
        "import os\nif os.system('touch FOLDER/touched') == 0: pass",
    ),
    probe("01_popen", "import os\nreached(os.popen('id').read())"),
    probe(
        "01_posix_system",
        "import ctypes\nctypes.CDLL(None).system(b'touch FOLDER/touched')",
    ),
    probe(
        "01_posix_spawn",
        "import posix\nposix.posix_spawn('/bin/touch', ['touch', 'FOLDER/touched'], {})",
    ),
    probe(
        "01_execv",
        "import os\nos.execv('/bin/touch', ['touch', 'FOLDER/touched'])",
    ),
    probe(
        "02_eval_reads_a_file",
        "reached(run_text(\"Deno.readTextFileSync('FOLDER/secret')\"))",
    ),
    probe(
        "02_indirect_eval",
        "js.setTimeout(\"Deno.writeTextFileSync('FOLDER/touched', '')\", 0)\nimport asyncio\nawait asyncio.sleep(0.1)",
    ),
    probe(
        "02_async_constructor",
        "f = run_text('(async()=>{}).constructor')\nreached(await f(\"return Deno.readTextFileSync('FOLDER/secret')\")())",
    ),
    probe(
        "03_env_by_deno",
        "reached(run_text('Deno.env.get(\"PATH\")'))",
    ),
    probe(
        "03_env_by_process",
        "v = run_text('process.env.PATH')\nif 'bin' in str(v): reached(v)",
    ),
    probe(
        "03_env_of_python",
        "import os\nfor k, v in os.environ.items():\n    if '/work' in v or 'usr/bin' in v or 'deno' in v.lower(): reached(v)",
    ),
    probe(
        "04_read_by_node",
        "reached(run_text(\"process.getBuiltinModule('node:fs').readFileSync('FOLDER/secret', 'utf8')\"))",
    ),
    probe(
        "04_read_by_import",
        "reached(await run_async(\"return (await import('node:fs')).readFileSync('FOLDER/secret', 'utf8')\"))",
    ),
    probe(
        "04_read_by_deno",
        "reached(await run_async(\"return await Deno.readTextFile('FOLDER/secret')\"))",
    ),
    probe("04_read_by_python", "reached(open('FOLDER/secret').read())"),
    probe(
        "04_list_by_deno",
        "reached(list(run_text(\"[...Deno.readDirSync('FOLDER')].map(e => e.name)\")))",
    ),
    probe(
        "05_proc_environ",
        "reached(run_text(\"Deno.readTextFileSync('/proc/self/environ')\"))",
    ),
    probe(
        "05_proc_mem",
        "reached(run_text(\"Deno.openSync('/proc/self/mem', {read: true, write: true})\"))",
    ),
    probe(
        "05_proc_of_the_gateway",
        "reached(run_text(\"Deno.readTextFileSync('/proc/PARENT/cmdline')\"))",
    ),
    probe(
        "06_write_by_deno",
        "run_text(\"Deno.writeTextFileSync('FOLDER/touched', 'x')\")",
    ),
    probe(
        "06_write_by_node",
        "run_text(\"process.getBuiltinModule('node:fs').writeFileSync('FOLDER/touched', 'x')\")",
    ),
    probe(
        "07_spawn_by_deno",
        "reached(run_text(\"new Deno.Command('/usr/bin/id').outputSync().code\"))",
    ),
    probe(
        "07_spawn_by_node",
        "reached(run_text(\"process.getBuiltinModule('node:child_process').execSync('id').toString()\"))",
    ),
    probe(
        "08_tcp_by_deno",
        "await run_async(\"await Deno.connect({port: TCP})\")",
    ),
    probe(
        "08_fetch",
        "await run_async(\"return (await fetch('http://127.0.0.1:TCP/')).status\")",
    ),
    probe(
        "08_pyfetch",
        "from pyodide.http import pyfetch\nreached((await pyfetch('http://127.0.0.1:TCP/')).status)",
    ),
    probe(
        "08_socket",
        "import socket\nsocket.create_connection(('127.0.0.1', TCP), 2).send(b'x')",
    ),
    probe(
        "08_urllib",
        "import urllib.request\nreached(urllib.request.urlopen('http://127.0.0.1:TCP/', timeout=2).status)",
    ),
    probe(
        "08_open_url",
        "from pyodide.http import open_url\nreached(open_url('http://127.0.0.1:TCP/'))",
    ),
    probe(
        "08_websocket",
        "run_text(\"new WebSocket('ws://127.0.0.1:TCP/')\")\nimport asyncio\nawait asyncio.sleep(0.3)",
    ),
    probe(
        "08_node_net",
        "run_text(\"process.getBuiltinModule('node:net').connect(TCP, '127.0.0.1')\")\nimport asyncio\nawait asyncio.sleep(0.3)",
    ),
    probe(
        "09_unix_by_deno",
        "await run_async(\"await Deno.connect({transport: 'unix', path: 'FOLDER/unix'})\")",
    ),
    probe(
        "09_unix_by_socket",
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('FOLDER/unix')\ns.send(b'x')",
    ),
    probe(
        "10_udp_by_node",
        "run_text(\"process.getBuiltinModule('node:dgram').createSocket('udp4').send('x', UDP, '127.0.0.1')\")\nimport asyncio\nawait asyncio.sleep(0.3)",
    ),
    probe(
        "10_udp_by_socket",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))",
    ),
    probe(
        "11_listen",
        "reached(run_text('Deno.listen({port: 0}).addr.port'))",
    ),
    probe(
        "11_inspector",
        "run_text(\"process.getBuiltinModule('node:inspector').open(0)\")\nreached(run_text(\"process.getBuiltinModule('node:inspector').url()\") or 1 / 0)",
    ),
    probe("12_names", "reached(run_text('Deno.hostname()'))"),
    probe(
        "12_dns",
        "reached(await run_async(\"return await Deno.resolveDns('localhost', 'A')\"))",
    ),
    probe(
        "12_user",
        "reached(run_text(\"process.getBuiltinModule('node:os').userInfo().username\"))",
    ),
    probe(
        "13_mount",
        "pyodide_js.FS.mount(pyodide_js.FS.filesystems.NODEFS, pyodide_js.toPy and __import__('pyodide').ffi.to_js({'root': 'FOLDER'}, dict_converter=js.Object.fromEntries), '/mnt')\nreached(open('/mnt/secret').read())",
    ),
    probe(
        "13_mount_node_fs",
        "pyodide_js.mountNodeFS('/host', 'FOLDER')\nreached(open('/host/secret').read())",
    ),
    probe(
        "14_load_binary_file",
        "reached(bytes((await pyodide_js._api.loadBinaryFile('FOLDER/secret')).to_py()))",
    ),
    probe(
        "14_load_package",
        "await pyodide_js.loadPackage('http://127.0.0.1:TCP/x-1-py3-none-any.whl')",
    ),
    probe(
        "15_import_local",
        "reached(await run_async(\"return (await import('file://FOLDER/secret.json', {with: {type: 'json'}})).default\"))",
    ),
    probe(
        "15_import_remote",
        "await run_async(\"await import('http://127.0.0.1:TCP/x.mjs')\")",
    ),
    probe(
        "16_ffi",
        "reached(run_text(\"Deno.dlopen('libc.so.6', {getpid: {parameters: [], result: 'i32'}}).symbols.getpid()\"))",
    ),
    probe(
        "17_worker",
        "run_text(\"new Worker('data:text/javascript,Deno.writeTextFileSync(\\\\'FOLDER/touched\\\\',\\\\'\\\\')', {type: 'module'})\")\nimport asyncio\nawait asyncio.sleep(0.5)",
    ),
    probe(
        "18_worker_asks",
        "run_text(\"new Worker('data:text/javascript,fetch(\\\\'http://127.0.0.1:TCP/\\\\')', {type: 'module', deno: {permissions: {net: true, read: true}}})\")\nimport asyncio\nawait asyncio.sleep(0.5)",
    ),
    probe(
        "19_ask_again",
        "s = run_text(\"Deno.permissions.requestSync({name: 'read'}).state\")\nif s == 'granted': reached(s)",
    ),
    probe(
        "20_sqlite",
        "reached(run_text(\"new (process.getBuiltinModule('node:sqlite').DatabaseSync)('FOLDER/touched')\"))",
    ),
    probe(
        "20_sqlite_attach",
        "run_text(\"new (process.getBuiltinModule('node:sqlite').DatabaseSync)(':memory:').exec(\\\"ATTACH 'FOLDER/touched' AS a; CREATE TABLE a.t(x)\\\")\")",
    ),
    probe(
        "21_signal",
        "import os, signal\nrun_text(\"Deno.kill(PARENT, 'SIGURG')\")\nreached('signal')",
    ),
    probe(
        "21_signal_by_python",
        "import os\nos.kill(PARENT, 0)\nreached('signal') if os.getpid() != 42 else None",
    ),
    probe(
        "22_local_storage",
        "run_text(\"localStorage.setItem('a', 'REACHED?')\")\nreached(run_text(\"localStorage.getItem('a')\"))",
    ),
    probe(
        "22_caches",
        "reached(await run_async(\"return await caches.open('a')\"))",
    ),
    probe(
        "23_ops",
        "reached(run_text('Deno[Deno.internal].core.ops.op_read_file_text_sync(\"FOLDER/secret\")'))",
    ),
    probe(
        "24_run_script",
        "import ctypes\nctypes.CDLL(None).emscripten_run_script_string(b\"Deno.writeTextFileSync('FOLDER/touched','')\")",
    ),
    probe(
        "24_asm_js",
        "import ctypes\nctypes.CDLL(None).emscripten_asm_const_int(b\"Deno.writeTextFileSync('FOLDER/touched','')\", b'', 0)",
    ),
    probe(
        "25_bundle",
        "reached(run_text(\"Deno.readTextFileSync('BUNDLE/manifest.json')\"))",
    ),
    probe(
        "25_snapshot",
        "reached(run_text(\"Deno.statSync('BUNDLE/snapshot.bin').size\"))",
    ),
    probe(
        "26_arguments",
        "v = run_text('Deno.args[0]')\nif 'FOLDER' in str(v): reached(v)",
    ),
    probe(
        "26_path_in_python",
        "import sys, os\nfor v in [*sys.argv, sys.executable, *sys.path, *os.environ.values()]:\n    if 'BUNDLE' in v: reached(v)",
    ),
    probe(
        "27_forged_frame",
        "run_text(\"Deno.stdout.writeSync(new Uint8Array([0, 0, 0, 2, 123, 125]))\")",
    ),
    probe(
        "27_garbage",
        "pyodide_js._module.FS.write(pyodide_js._module.FS.streams[1], js.Uint8Array.new([255] * 100), 0, 100)",
    ),
    probe("28_side_module", SIDE_MODULE),
    probe(
        "29_call_sites",
        "E = js.Error\nE.prepareStackTrace = lambda error, sites: reached(sites)\nE.captureStackTrace(js.Object.new())",
    ),
    probe(
        "29_error_by_exception",
        "try:\n    js.Object.defineProperty(None, 'x', None)\nexcept BaseException as error:\n    E = error.js_error.constructor\n    f = E.constructor\n    reached(f('return Deno.readTextFileSync(\"FOLDER/secret\")')())",
    ),
    probe(
        "30_poisoned_prototype",
        "js.Object.prototype.__defineGetter__('then', lambda *a: None)\nrun_text(\"Deno.readTextFileSync('FOLDER/secret')\")",
    ),
    probe(
        "31_set_stdout",
        "pyodide_js.setStdout(__import__('pyodide').ffi.to_js({'raw': print}))\nreached(run_text(\"Deno.cwd()\"))",
    ),
];
