#!/usr/bin/env bash
# Builds the book into target/book. Needs Rust's standard library for the browser, which it gets by rustup or, where that
# can't download, builds with Debian's compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
target=wasm32-unknown-unknown

# For the compiler that follows it: nothing that the bridge is built with is meant for this machine.
bridge() {
  RUSTFLAGS='--cfg getrandom_backend="wasm_js" -C target-feature=+simd128' \
    cargo build --locked --profile browser -p candle-losses-book --target $target "$@"
}

if rustup target list --installed 2>/dev/null | grep -q $target || rustup target add $target; then
  bridge
else
  [ -d /usr/lib/rustlib/src/rust/library ] || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends rustc-web rust-web-src lld
  }
  linker=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
  [ -x "$linker" ] || linker=/usr/bin/wasm-ld
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" \
    bridge -Z build-std=std,panic_abort
fi

cargo run --locked --quiet -p candle-losses-book-build -- \
  "$CARGO_TARGET_DIR/$target/browser/candle_losses_book.wasm" target/book
