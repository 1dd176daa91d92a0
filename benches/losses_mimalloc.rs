//! `losses.rs` with the allocator of the examples.

#[path = "losses.rs"]
mod losses;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> candle_core::Result<()> {
    losses::main()
}
