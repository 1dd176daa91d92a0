//! Access to the memory of tensors on the CPU.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType, bail};

/// Calls `f` with the storages of tensors on the CPU.
///
/// Each storage is locked once, whichever of the tensors share it: a second lock by the same thread would wait forever if
/// another thread had asked to write in between.
pub(crate) fn with_storages<R>(
    tensors: &[&Tensor],
    f: impl FnOnce(&[(&CpuStorage, &Layout)]) -> Result<R>,
) -> Result<R> {
    let addresses = tensors.iter().map(|tensor| address(tensor)).collect::<Vec<_>>();
    let first = |i: usize| addresses.iter().position(|address| *address == addresses[i]).unwrap_or(i);
    // In the order of their addresses: two threads that lock in different orders would wait for each other if two more
    // had asked to write in between.
    let mut order = (0..tensors.len()).filter(|&i| first(i) == i).collect::<Vec<_>>();
    order.sort_by_key(|&i| addresses[i]);
    let mut locks = tensors.iter().map(|_| None).collect::<Vec<_>>();
    for i in order {
        locks[i] = Some(tensors[i].storage_and_layout().0);
    }
    let mut storages = Vec::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        match &locks[first(i)] {
            Some(storage) => storages.push((on_cpu(storage)?, tensor.layout())),
            None => bail!("a storage is not locked"),
        }
    }
    f(&storages)
}

/// Where the storage of a tensor is: tensors that share memory share it. The lock is released again.
pub(crate) fn address(tensor: &Tensor) -> usize {
    std::ptr::from_ref::<Storage>(&tensor.storage_and_layout().0).addr()
}

/// The memory of a tensor on the CPU.
pub(crate) fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("a tensor for the CPU is on another device"),
    }
}

/// The elements of a contiguous storage.
pub(crate) fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice()?[start..end]),
        None => bail!("a tensor of shape {:?} is not contiguous", layout.dims()),
    }
}

/// Calls `f` with the elements of a tensor on the CPU, which are copied if the tensor is not contiguous.
pub(crate) fn with_elements<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    Ok(f(elements(on_cpu(&storage)?, layout)?))
}
