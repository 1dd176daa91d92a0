//! A loss as one op of candle's: what the walks have in common.

use super::number::{Number, Source, with_number};
use super::scalar::of;
use super::stash::{Room, keep};
use super::{is_host, ops};
use candle_core::backend::BackendStorage;
use candle_core::{Context, CpuStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, bail};
use std::mem::MaybeUninit;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A way through the elements of `N` arguments of one shape and dtype, in one pass.
pub(crate) trait Walk<const N: usize>: Send + Sync + 'static {
    /// The shape of the losses of arguments of this shape.
    fn losses(&self, dims: &[usize]) -> Vec<usize>;

    /// Writes what is wanted, and gives the sum of the losses.
    ///
    /// # Safety
    /// An implementation must write all of the room that it is given.
    #[allow(unsafe_code)]
    unsafe fn walk<T: Number>(&self, args: [&Arg; N], wanted: Wanted<T, N>) -> Result<f64>;
}

/// An argument on the CPU.
pub(crate) struct Arg<'a> {
    pub storage: &'a CpuStorage,
    pub layout: &'a Layout,
}

/// What a walk is to write: the losses themselves, and the derivatives by the arguments, in the shape of the arguments.
pub(crate) struct Wanted<'a, T: Number, const N: usize> {
    pub losses: Option<&'a mut [MaybeUninit<T>]>,
    pub slopes: [Option<&'a mut [MaybeUninit<T>]>; N],
    /// What the derivatives are to be multiplied by: all alike,
    pub factor: f64,
    /// and each by that of its loss.
    pub grad: Option<Source<'a, T>>,
}

/// Whether [`fused`] takes these arguments: floats on the host, of one shape and dtype.
pub(crate) fn can_be_fused(args: &[&Tensor]) -> bool {
    let first = args[0];
    let is_known = matches!(first.dtype(), DType::F32 | DType::F64 | DType::BF16 | DType::F16);
    let is_alike = |arg: &&Tensor| is_host(arg.device()) && arg.dtype() == first.dtype() && arg.dims() == first.dims();
    is_known && first.elem_count() > 0 && args.iter().all(is_alike)
}

/// `factor · Σ l` over the losses of a walk through the arguments, or each `l` where there is no factor.
///
/// With a factor forward finds the derivatives as well, as they share most of their work with the losses, and backward hands
/// them on. Without one they depend on what backward brings, and are found then: to keep them would take more memory, and
/// to multiply them later no less time.
pub(crate) fn fused<Wk: Walk<N>, const N: usize>(args: [&Tensor; N], factor: Option<f64>, walk: Wk) -> Result<Tensor> {
    const { assert!(1 <= N && N <= 3) };
    let op = Fused { walk, factor, wanted: args.map(Tensor::track_op), found: OnceLock::new(), lent: Mutex::default() };
    args[0].apply_op3(args[1.min(N - 1)], args[N - 1], op)
}

/// The sum of the losses of a walk, and the derivatives by its argument: of the sum, or of the losses each times its `grad`.
/// Backward would give the same, but adds it to zeros. [`keep`] takes the derivatives back when nobody needs them any more.
pub(crate) fn sum_and_slopes<Wk: Walk<1>>(arg: &Tensor, grad: Option<&Tensor>, walk: Wk) -> Result<(f64, Tensor)> {
    let op = Fused { walk, factor: None, wanted: [true], found: OnceLock::new(), lent: Mutex::default() };
    let (sum, [slopes]) = with_number!(arg.dtype(), T => op.slopes_of::<T>([arg], grad)?);
    Ok((sum, slopes.context("no derivatives, though they are wanted")?))
}

struct Fused<Wk, const N: usize> {
    walk: Wk,
    factor: Option<f64>,
    /// Which arguments a gradient is wanted of.
    wanted: [bool; N],
    found: OnceLock<[Option<Tensor>; N]>,
    /// Gradients that backward was given, which are its own only while it adds them up.
    lent: Mutex<Vec<Tensor>>,
}

/// With the op goes the loss that could be asked for its gradient again, so that nobody has the derivatives any more.
impl<Wk, const N: usize> Drop for Fused<Wk, N> {
    fn drop(&mut self) {
        let found = self.found.take().into_iter().flatten().flatten();
        let lent = std::mem::take(&mut *self.lent.lock().unwrap_or_else(PoisonError::into_inner));
        found.chain(lent).for_each(keep);
    }
}

#[allow(unsafe_code)]
impl<Wk: Walk<N>, const N: usize> Fused<Wk, N> {
    fn forward<T: Number>(&self, args: [&Arg; N]) -> Result<(CpuStorage, Shape)> {
        let dims = args[0].layout.dims();
        let shape = Shape::from(self.walk.losses(dims));
        let Some(factor) = self.factor else {
            let mut losses = Vec::<T>::with_capacity(shape.elem_count());
            let room = &mut losses.spare_capacity_mut()[..shape.elem_count()];
            let wanted = Wanted { losses: Some(room), slopes: [const { None }; N], factor: 1.0, grad: None };
            // SAFETY: the walk has written all that there was room for.
            unsafe {
                self.walk.walk(args, wanted)?;
                losses.set_len(shape.elem_count());
            }
            return Ok((T::to_cpu_storage_owned(losses), shape));
        };
        let (sum, slopes) = self.slopes::<T>(args, factor, None)?;
        // Set once, as an op runs forward once.
        let _ = self.found.set(slopes);
        Ok((T::to_cpu_storage_owned(vec![T::nearest(of::<T::Wide>(sum * factor))]), Shape::from(())))
    }

    /// The sum of the losses and the gradients that are wanted.
    fn slopes<T: Number>(
        &self,
        args: [&Arg; N],
        factor: f64,
        grad: Option<Source<T>>,
    ) -> Result<(f64, [Option<Tensor>; N])> {
        let shape = args[0].layout.shape();
        let len = shape.elem_count();
        let mut slopes = [const { None }; N];
        for (slopes, _) in slopes.iter_mut().zip(self.wanted).filter(|(_, is_wanted)| *is_wanted) {
            *slopes = Some(Room::<T>::new(len)?);
        }
        let room = slopes.each_mut().map(|slopes| slopes.as_mut().map(|slopes| slopes.room(len)));
        let mut found = [const { None }; N];
        // SAFETY: the walk has written all that there was room for.
        let sum = unsafe {
            let sum = self.walk.walk(args, Wanted { losses: None, slopes: room, factor, grad })?;
            for (found, slopes) in found.iter_mut().zip(slopes) {
                *found = slopes.map(|slopes| slopes.finish(shape)).transpose()?;
            }
            sum
        };
        Ok((sum, found))
    }

    /// The same, of the losses each times its `grad`.
    fn slopes_of<T: Number>(&self, args: [&Tensor; N], grad: Option<&Tensor>) -> Result<(f64, [Option<Tensor>; N])> {
        let args = args.map(Tensor::storage_and_layout);
        let mut all = Vec::with_capacity(N);
        for (storage, layout) in &args {
            all.push(Arg { storage: on_host(storage)?, layout });
        }
        let grad = grad.map(Tensor::storage_and_layout);
        let grad = match &grad {
            Some((storage, layout)) => Some(Source::<T>::new(on_host(storage)?, layout)?),
            None => None,
        };
        self.slopes(std::array::from_fn(|i| &all[i]), 1.0, grad)
    }
}

/// The memory of a tensor on the CPU.
pub(crate) fn on_host(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("a tensor that is worked on by the host is on another device"),
    }
}

impl<Wk: Walk<N>, const N: usize> CustomOp3 for Fused<Wk, N> {
    fn name(&self) -> &'static str {
        "fused-loss"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_at: &Layout,
        b: &CpuStorage,
        b_at: &Layout,
        c: &CpuStorage,
        c_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let args = [(a, a_at), (b, b_at), (c, c_at)].map(|(storage, layout)| Arg { storage, layout });
        let args = std::array::from_fn(|i| &args[i]);
        with_number!(a.dtype(), T => self.forward::<T>(args))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let args = std::array::from_fn(|i| [a, b, c][i]);
        let mut gradients = [const { None }; N];
        if let Some(found) = self.found.get() {
            for (gradient, found) in gradients.iter_mut().zip(found) {
                *gradient = found.as_ref().map(|found| ops::scaled(found, grad)).transpose()?;
            }
        } else {
            gradients = with_number!(grad.dtype(), T => self.slopes_of::<T>(args, Some(grad))?).1;
            self.lent.lock().unwrap_or_else(PoisonError::into_inner).extend(gradients.iter().flatten().cloned());
        }
        let mut gradients = gradients.into_iter();
        let mut next = || gradients.next().flatten();
        Ok((next(), next(), next()))
    }
}
