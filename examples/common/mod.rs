//! What every example has in common: an allocator that keeps pace with a model's many small tensors.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
