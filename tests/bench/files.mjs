// Makes what a run needs and the repository does not hold: model files, candle's .wasm, the
// Python environment. Everything lands in target/bench and is made once.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const HERE = dirname(fileURLToPath(import.meta.url));
export const ROOT = join(HERE, "../..");
export const BUILD = join(ROOT, "target/bench");
export const MODELS = join(BUILD, "models");
const VENV_PYTHON = join(BUILD, "venv/bin/python");
const CANDLE = join(HERE, "candle-wasm");

function exec(command, args, cwd = ROOT, env = process.env) {
  console.error(`bench: ${command} ${args.join(" ")}`);
  execFileSync(command, args, { cwd, env, stdio: ["ignore", "inherit", "inherit"] });
}

/** The Python with onnx and onnxruntime, installed on first use. */
export function python() {
  if (!existsSync(VENV_PYTHON)) {
    exec("python3", ["-m", "venv", join(BUILD, "venv")]);
    exec(VENV_PYTHON, ["-m", "pip", "install", "--quiet", "-r", join(HERE, "requirements.txt")]);
  }
  return VENV_PYTHON;
}

/** A Python with llama.cpp compiled for this machine, installed on first use: takes some ten minutes. */
export function llamaPython() {
  const venv = join(BUILD, "llama");
  const python = join(venv, "bin/python");
  if (!existsSync(join(venv, "ready"))) {
    exec("python3", ["-m", "venv", venv]);
    const env = { ...process.env, CMAKE_ARGS: "-DGGML_NATIVE=ON -DLLAMA_BUILD_TOOLS=OFF" };
    exec(python, ["-m", "pip", "install", "--quiet", "-r", join(HERE, "requirements-llama.txt")], ROOT, env);
    writeFileSync(join(venv, "ready"), "");
  }
  return python;
}

/** Builds candle for the browser from crates.io. */
export function buildCandle() {
  const out = join(BUILD, "candle");
  if (existsSync(join(out, "candle_wasm.js"))) return;
  exec("cargo", ["build", "--release", "--locked"], CANDLE);
  const wasm = join(CANDLE, "target/wasm32-unknown-unknown/release/candle_wasm.wasm");
  exec("wasm-bindgen", ["--target", "web", "--out-dir", out, wasm]);
}

/** Makes one model file, named `SHAPE-TYPE.EXTENSION`, and gives its path. */
export function modelFile(name) {
  const path = join(MODELS, name);
  if (existsSync(path)) return path;
  mkdirSync(MODELS, { recursive: true });
  const [, shape, type, extension] = /^(.+)-([^-]+)\.([a-z]+)$/.exec(name);
  if (extension === "onnx") {
    exec(python(), [join(HERE, "make_onnx.py"), shape, MODELS]);
  } else {
    const flags = ["run", "--quiet", "--release", "--example", "random_model", "--"];
    exec("cargo", [...flags, "--shape", shape, "--type", type, path]);
  }
  return path;
}
