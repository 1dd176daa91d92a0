// The bridge, unpacked here: not every host compresses what it serves.
import init, * as bridge from "./bridge.js";

export async function load() {
  const packed = await fetch(new URL("bridge.bin", import.meta.url));
  if (!packed.ok) throw new Error(`the bridge can't be loaded: ${packed.status}`);
  const unpacked = packed.body.pipeThrough(new DecompressionStream("gzip"));
  const headers = { "content-type": "application/wasm" };
  await init({ module_or_path: new Response(unpacked, { headers }) });
  return bridge;
}
