// The host program of an interpreter process: one process, one Python, one session.
//
//   deno run FLAGS harness.mjs '{"bundle": DIR, "memory_mib": N, ...}'    serve one session
//   deno run FLAGS harness.mjs --build DIR                                finish a bundle
//
// Frames in both directions on standard input and output: length as u32, big-endian, then that many
// bytes of JSON. From the gateway: {"type":"run","id","code"}, {"type":"warm","modules"}. To it:
// ready, out (log text as it comes), image, result, warmed, fatal. The gateway takes every byte from
// here for hostile, keeps the time, and kills this process when it is done with it.
//
// Nothing here is the boundary: that is Deno without permissions, inside the operating system's wall.
// But model code should not find anything to play with, so: Python sees next to no JavaScript, the
// global object is emptied of what the host offers, and no text can become code.

/** What Python may see of JavaScript. `Error` is left out: it would hand over our call sites. */
const visible = () =>
  Object.assign(Object.create(null), {
    setTimeout, clearTimeout, Object, Array, Map, Promise, Uint8Array,
  });

/** Names that stay on the global object: the language itself, and what Pyodide needs to run. */
const KEPT = new Set(`
  Object Function Array Number Boolean String Symbol BigInt Math JSON Reflect Proxy Date RegExp Promise
  Map Set WeakMap WeakSet WeakRef FinalizationRegistry Error AggregateError EvalError RangeError
  ReferenceError SyntaxError TypeError URIError SuppressedError DisposableStack AsyncDisposableStack
  Iterator ArrayBuffer SharedArrayBuffer DataView Atomics Int8Array Uint8Array Uint8ClampedArray
  Int16Array Uint16Array Int32Array Uint32Array Float16Array Float32Array Float64Array BigInt64Array
  BigUint64Array WebAssembly Infinity NaN undefined globalThis parseInt parseFloat isNaN isFinite
  decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape
  setTimeout clearTimeout setInterval clearInterval setImmediate clearImmediate queueMicrotask
  structuredClone performance crypto console TextEncoder TextDecoder atob btoa URL AbortController
  AbortSignal DOMException Event EventTarget MessageChannel MessagePort
`.trim().split(/\s+/));

const PERMISSIONS = ["read", "write", "net", "env", "run", "ffi", "sys", "import"];
const PAGE = 65536;

/** Python's side, kept in the snapshot as the module `_interpreter`. */
const SUPPORT = String.raw`
import ast, asyncio, base64, builtins, collections, contextlib, csv, dataclasses, datetime, decimal
import enum, fractions, functools, heapq, importlib, inspect, io, itertools, json, linecache, math
import operator, os, random, re, statistics, string, sys, textwrap, time, traceback, types, typing

class Limits:
    images = 10
    image_bytes = 5 * 1024 * 1024
    error_chars = 16384

class Call:
    """What one call has left behind beside its output."""
    images = []
    dropped = False

cells = 0
main = sys.modules["__main__"].__dict__
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

def begin(images, image_bytes):
    """After a restore: what must differ between two interpreters from one snapshot."""
    global cells
    cells = 0
    Limits.images, Limits.image_bytes = images, image_bytes
    random.seed()
    # The host loads its random source at the first use, which it can only do until it is closed.
    os.urandom(1)
    os.makedirs("/mnt/data", exist_ok=True)
    os.chdir("/mnt/data")
    os.environ.update(HOME="/mnt/data", MPLBACKEND="AGG", MPLCONFIGDIR="/tmp/matplotlib")
    importlib.invalidate_caches()
    sys.path[:] = [path for path in sys.path if path] + [""]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    builtins.display = display
    # Without processes the host would end this one.
    os.system = os.popen = no_process
    sys.meta_path.insert(0, Patches())

def no_process(*_args, **_options):
    raise OSError("there are no processes here")

def start(source):
    """Compiles a call. True when it must be awaited."""
    global cells
    cells += 1
    Call.images, Call.dropped = [], False
    name = f"<cell {cells}>"
    lines = source.splitlines(keepends=True)
    linecache.cache[name] = (len(source), None, lines, name)
    tree = compile(source, name, "exec", FLAGS | ast.PyCF_ONLY_AST)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    body = compile(tree, name, "exec", FLAGS)
    tail = last and compile(last, name, "eval", FLAGS)
    return [code for code in (body, tail) if code]

def is_async(code):
    return bool(code.co_flags & inspect.CO_COROUTINE)

def run(source):
    """Runs a call. None when all is well, the error's text, or a coroutine that gives either."""
    try:
        codes = start(source)
    except BaseException as error:
        return finish(error)
    if any(map(is_async, codes)):
        return run_async(codes)
    try:
        value = None
        for code in codes:
            value = eval(code, main)
        shown(value)
    except BaseException as error:
        return finish(error)
    return finish(None)

async def run_async(codes):
    try:
        value = None
        for code in codes:
            value = eval(code, main)
            if is_async(code):
                value = await value
        shown(value)
    except BaseException as error:
        return finish(error)
    return finish(None)

def shown(value):
    """The last expression's value, as a notebook shows it."""
    if value is not None:
        main["_"] = value
        display(value)

def finish(error):
    text = None
    if error is not None:
        text = describe(error)
        # Frames of the failed call hold on to its objects.
        error.__traceback__ = None
    with contextlib.suppress(BaseException):
        show_figures()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(BaseException):
            stream.flush()
    return text

def describe(error):
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        text = f"{type(error).__name__} (its text cannot be made)"
    if len(text) > Limits.error_chars:
        half = Limits.error_chars // 2
        text = text[:half] + "\n... cut ...\n" + text[-half:]
    return text.encode("utf-8", "replace").decode()

def take_images():
    images, Call.images = Call.images, []
    return images

def emit(png):
    if len(Call.images) >= Limits.images or len(png) > Limits.image_bytes:
        Call.dropped = True
    else:
        Call.images.append(base64.b64encode(png).decode())

def dropped():
    return Call.dropped

def display(*values, **_options):
    """Shows each value: a picture as a picture, anything else as text."""
    for value in values:
        if not picture(value):
            print(repr(value))

def picture(value):
    figures = sys.modules.get("matplotlib.figure")
    if figures and isinstance(value, figures.Figure):
        emit(render(value))
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close(value)
        return True
    image = sys.modules.get("PIL.Image")
    if image and isinstance(value, image.Image):
        data = io.BytesIO()
        value.save(data, "PNG")
        emit(data.getvalue())
        return True
    return False

def render(figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", bbox_inches="tight")
    return data.getvalue()

def show_figures(*_args, **_options):
    """Every open figure becomes a picture and is closed, as in a notebook."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in pyplot.get_fignums() if pyplot else ():
        figure = pyplot.figure(number)
        if figure.axes or figure.texts or figure.images:
            emit(render(figure))
        pyplot.close(figure)

class Patches:
    """Lets pyplot and PIL show pictures here, and scipy find its libraries, when they are imported."""
    names = {"matplotlib.pyplot", "PIL.Image", "scipy"}

    def find_spec(self, name, path=None, target=None):
        if name not in self.names:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec and spec.loader:
            load = spec.loader.exec_module
            def exec_module(module):
                if name == "scipy":
                    load_libraries()
                load(module)
                if name == "PIL.Image":
                    module.Image.show = lambda self, *_args, **_options: display(self)
                elif name == "matplotlib.pyplot":
                    module.show = show_figures
            spec.loader.exec_module = exec_module
        return spec

def load_libraries():
    """Extension modules link against these, and only what is loaded, by its bare name, is found."""
    import ctypes
    # With a search path the loader would know them by their full paths.
    os.environ.pop("LD_LIBRARY_PATH", None)
    with contextlib.suppress(OSError), contextlib.chdir("/usr/lib"):
        for name in sorted(os.listdir()):
            if name.endswith(".so"):
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)

def warm(modules):
    done = []
    for module in modules:
        with contextlib.suppress(BaseException):
            importlib.import_module(module)
            done.append(module)
    if "matplotlib.pyplot" in done:
        # The first figure makes the font list, which takes longer than any later one.
        with contextlib.suppress(BaseException):
            pyplot = sys.modules["matplotlib.pyplot"]
            render(pyplot.figure())
            pyplot.close("all")
    numpy = sys.modules.get("numpy")
    if numpy:
        numpy.random.seed()
    Call.images, Call.dropped = [], False
    return done
`;

// ---- frames -------------------------------------------------------------------------------------

const { stdin, stdout, exit } = Deno;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

function readExactly(length) {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = stdin.readSync(bytes.subarray(at));
    if (count === null) return null;
    at += count;
  }
  return bytes;
}

function receive() {
  const head = readExactly(4);
  const body = head && readExactly(new DataView(head.buffer).getUint32(0));
  return body && JSON.parse(decoder.decode(body));
}

function send(message) {
  const body = encoder.encode(JSON.stringify(message));
  const frame = new Uint8Array(4 + body.length);
  new DataView(frame.buffer).setUint32(0, body.length);
  frame.set(body, 4);
  for (let at = 0; at < frame.length;) at += stdout.writeSync(frame.subarray(at));
}

// ---- output of the running call -----------------------------------------------------------------

/** Bursts of output are joined up to this size; what a killed call loses is at most this much. */
const JOIN = 4096;
/** So many writes of a call, and every write after a pause, go out at once. */
const PROMPT_WRITES = 256;
const PAUSE_MS = 5;

class Output {
  constructor(limit) {
    this.limit = limit;
    this.begin(null);
  }

  begin(id) {
    this.id = id;
    this.left = this.limit;
    this.truncated = false;
    this.writes = 0;
    this.last = 0;
    this.pending = [];
    this.size = 0;
    this.text = new TextDecoder();
  }

  write(bytes) {
    const taken = Math.min(bytes.length, this.left);
    if (taken < bytes.length) this.truncated = true;
    if (taken > 0) {
      this.left -= taken;
      this.pending.push(bytes.slice(0, taken));
      this.size += taken;
      const now = performance.now();
      const prompt = this.writes < PROMPT_WRITES || now - this.last > PAUSE_MS;
      this.writes += 1;
      this.last = now;
      if (prompt || this.size >= JOIN) this.flush();
    }
    return bytes.length;
  }

  /** Sends what is joined. Output between calls belongs to nobody and is dropped. */
  flush(end = false) {
    let text = "";
    for (const bytes of this.pending) text += this.text.decode(bytes, { stream: true });
    if (end) text += this.text.decode();
    this.pending = [];
    this.size = 0;
    if (text && this.id !== null) send({ type: "out", id: this.id, text });
  }
}

// ---- Pyodide ------------------------------------------------------------------------------------

/** Loads Pyodide from the bundle, of any version since 0.27, with a cap on its memory. */
async function load(bundle, options) {
  const home = `${bundle}/pyodide/`;
  const { loadPyodide, version } = await import(`file://${home}pyodide.mjs`);
  const shimmed = /^0\./.test(version);
  if (shimmed) {
    const { createRequire } = await import("node:module");
    globalThis.require = createRequire(`file://${home}`);
    globalThis.__dirname = home;
  }
  const pyodide = await loadPyodide({
    indexURL: home,
    stdLibURL: `${home}python_stdlib.zip`,
    jsglobals: visible(),
    env: { HOME: "/mnt/data", MPLBACKEND: "AGG", PYTHONINSPECT: "", TZ: "UTC" },
    checkAPIVersion: false,
    // Else the path of this file, which tells where the gateway lives.
    _sysExecutable: "python3",
    ...options,
  });
  return pyodide;
}

/** Growth beyond the cap fails, which Python turns into `MemoryError`. */
function capMemory(mib) {
  const most = mib * 1024 * 1024;
  const grow = WebAssembly.Memory.prototype.grow;
  WebAssembly.Memory.prototype.grow = function (pages) {
    if (this.buffer.byteLength + Number(pages) * PAGE > most) throw new RangeError("memory limit");
    return grow.call(this, pages);
  };
}

/**
 * Puts the packages of the site image into the file system. A file's bytes are read when Python first
 * looks at them: the descriptor was opened while that was allowed, and outlives the permission.
 */
function mountSite(pyodide, bundle) {
  let index, image;
  try {
    index = JSON.parse(Deno.readTextFileSync(`${bundle}/site/image.json`));
    image = Deno.openSync(`${bundle}/site/image.bin`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  const { FS } = pyodide;
  const regular = 0o100644;
  let folder, parent;
  for (const [path, start, length] of index) {
    const slash = path.lastIndexOf("/");
    const here = path.slice(0, slash);
    if (here !== folder) {
      FS.mkdirTree(here);
      parent = FS.lookupPath(here).node;
      folder = here;
    }
    const name = path.slice(slash + 1);
    const node = parent.contents[name] ?? parent.node_ops.mknod(parent, name, regular, 0);
    node.usedBytes = length;
    Object.defineProperty(node, "contents", {
      configurable: true,
      enumerable: true,
      get() {
        this.contents = readAt(image, start, length);
        return this.contents;
      },
      set(value) {
        Object.defineProperty(this, "contents", { value, writable: true, configurable: true, enumerable: true });
      },
    });
  }
}

function readAt(file, start, length) {
  const bytes = new Uint8Array(length);
  file.seekSync(start, 0);
  for (let at = 0; at < length;) {
    const count = file.readSync(bytes.subarray(at));
    if (count === null) throw new Error("the site image is cut short");
    at += count;
  }
  return bytes;
}

// ---- one session --------------------------------------------------------------------------------

async function serve(config) {
  capMemory(config.memory_mib);
  const output = new Output(config.output_bytes);
  const pyodide = await load(config.bundle, {
    _loadSnapshot: Deno.readFileSync(`${config.bundle}/snapshot.bin`),
  });
  mountSite(pyodide, config.bundle);
  const stream = { write: (bytes) => output.write(bytes), isatty: false };
  pyodide.setStdout(stream);
  pyodide.setStderr(stream);
  pyodide.setStdin({ stdin: () => null });
  const python = pyodide.pyimport("_interpreter");
  // What the first call would wait for: the machine code of running, printing and failing.
  for (const code of ["print(1)\n1", "1 / 0"]) await call(python, code);
  python.begin(config.images, config.image_bytes);
  close();
  send({ type: "ready", pyodide: pyodide.version });
  for (let message; (message = receive()) !== null;) {
    if (message.type === "run") await run(python, output, message);
    else if (message.type === "warm") warm(pyodide, python, message.modules);
  }
}

/** Gives up every permission, and everything the host offers by name. */
function close() {
  for (const name of PERMISSIONS) Deno.permissions.revokeSync({ name });
  // Symbols stay: the host knows its own global object by one.
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    if (!KEPT.has(name)) delete globalThis[name];
  }
}

async function run(python, output, { id, code }) {
  output.begin(id);
  let error = await call(python, code);
  const images = python.take_images();
  for (const png of images) send({ type: "image", id, png });
  images.destroy();
  output.flush(true);
  output.id = null;
  send({ type: "result", id, error: error ?? null, truncated: output.truncated || python.dropped() });
}

/** With stack switching, `asyncio.run` waits as it does everywhere else. */
async function call(python, code) {
  const { run } = python;
  try {
    const waits = /asyncio\s*\.\s*run|run_until_complete|run_sync/.test(code);
    let answer = waits && run.callPromising ? await run.callPromising(code) : run(code);
    if (answer && typeof answer === "object") {
      const coroutine = answer;
      answer = await coroutine;
      coroutine.destroy?.();
    }
    return answer;
  } finally {
    run.destroy();
  }
}

function warm(pyodide, python, modules) {
  const asked = pyodide.toPy(modules);
  const done = python.warm(asked);
  send({ type: "warmed", modules: done.toJs() });
  done.destroy();
  asked.destroy();
}

// ---- building a bundle --------------------------------------------------------------------------

const COMPILE = String.raw`
import importlib._bootstrap_external as external
import importlib.util, io, zipfile

def compiled(name, source, place):
    """The bytes of an unchecked .pyc, or None for what does not compile (tests, templates)."""
    try:
        code = compile(source, place, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    return bytes(external._code_to_hash_pyc(code, importlib.util.source_hash(source), False))

def compile_zip(data, home):
    """A standard library zip with a compiled module beside each source; None if it has them."""
    old = zipfile.ZipFile(io.BytesIO(data))
    if any(name.endswith(".pyc") for name in old.namelist()):
        return None
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, content)
            if entry.filename.endswith(".py"):
                code = compiled(entry.filename, content, f"{home}/{entry.filename}")
                if code:
                    new.writestr(entry.filename + "c", code)
    return result.getvalue()

def unpack(name, data, site, tag):
    """(path, bytes) of everything in a wheel, or in a zip of shared libraries."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    shared = not name.endswith(".whl")
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        path, content = entry.filename, archive.read(entry)
        if shared:
            yield "/usr/lib/" + path.rsplit("/", 1)[-1], content
            continue
        if ".data/" in path.split("/", 1)[0] + "/":
            path = path.split("/", 2)[-1]
        yield f"{site}/{path}", content
        if path.endswith(".py"):
            code = compiled(path, content, f"{site}/{path}")
            folder, _, file = path.rpartition("/")
            if code:
                folder = f"{site}/{folder}" if folder else site
                yield f"{folder}/__pycache__/{file[:-3]}.{tag}.pyc", code

def unpack_list(name, data, site, tag):
    return list(unpack(name, data, site, tag))
`;

async function build(bundle) {
  const say = (text) => console.error(text);
  say("compiling the standard library");
  await compileLibrary(bundle);
  await buildSite(bundle, say);
  say("taking the snapshot");
  const pyodide = await load(bundle, { _makeSnapshot: true });
  pyodide.globals.set("support", SUPPORT);
  pyodide.runPython(`
import sys, types
module = types.ModuleType("_interpreter")
exec(compile(support, "<interpreter>", "exec"), module.__dict__)
sys.modules["_interpreter"] = module
del module, support, types, sys
`);
  write(`${bundle}/snapshot.bin`, pyodide.makeMemorySnapshot?.() ?? pyodide._api.makeSnapshot());
  say("done");
}

/** Whole or not at all. */
function write(path, bytes) {
  Deno.writeFileSync(`${path}.new`, bytes);
  Deno.renameSync(`${path}.new`, path);
}

async function compileLibrary(bundle) {
  const path = `${bundle}/pyodide/python_stdlib.zip`;
  const pyodide = await load(bundle, {});
  pyodide.runPython(COMPILE);
  const home = pyodide.runPython("next(p for p in __import__('sys').path if p.endswith('.zip'))");
  const compile = pyodide.globals.get("compile_zip");
  const data = pyodide.toPy(Deno.readFileSync(path));
  const result = pyodide.runPython("lambda f, d, h: f(d.tobytes() if hasattr(d, 'tobytes') else d, h)")(compile, data, home);
  if (result) write(path, result.toJs());
}

async function buildSite(bundle, say) {
  const wheels = `${bundle}/site/wheels`;
  let names;
  try {
    names = [...Deno.readDirSync(wheels)].map((entry) => entry.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  names = names.filter((name) => /\.(whl|zip)$/.test(name)).sort();
  const index = [];
  const file = Deno.openSync(`${bundle}/site/image.bin.new`, { write: true, create: true, truncate: true });
  let at = 0;
  for (const name of names) {
    say(`unpacking and compiling ${name}`);
    // A fresh interpreter for each: what one archive needed is not held for the next.
    const pyodide = await load(bundle, {});
    pyodide.runPython(COMPILE);
    const site = pyodide.runPython("__import__('site').getsitepackages()[0]");
    const tag = pyodide.runPython("__import__('sys').implementation.cache_tag");
    const unpack = pyodide.runPython("lambda n, d, s, t: unpack_list(n, d.tobytes() if hasattr(d, 'tobytes') else d, s, t)");
    const files = unpack(name, pyodide.toPy(Deno.readFileSync(`${wheels}/${name}`)), site, tag);
    for (const [path, content] of files.toJs()) {
      for (let done = 0; done < content.length;) done += file.writeSync(content.subarray(done));
      index.push([path, at, content.length]);
      at += content.length;
    }
  }
  file.close();
  Deno.renameSync(`${bundle}/site/image.bin.new`, `${bundle}/site/image.bin`);
  write(`${bundle}/site/image.json`, encoder.encode(JSON.stringify(index)));
}

// -------------------------------------------------------------------------------------------------

const [first, second] = Deno.args;
try {
  if (first === "--build") await build(second);
  else await serve(JSON.parse(first));
} catch (error) {
  // Python cannot go on, or never began. The text is for the log and is taken for hostile.
  const reason = String(error?.message ?? error).slice(0, 2000);
  if (first === "--build") console.error(reason);
  else send({ type: "fatal", reason });
  exit(70);
}
exit(0);
