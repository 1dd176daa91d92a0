//! What a loss holds on a GPU, counted on the CPU: without kernels each tensor op allocates there what it would allocate on a
//! GPU. Each loss runs forward and backward in `f32`, with the mean, on one input that is differentiated, or on all inputs
//! where it has several.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::loss::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// The system's allocator, which counts.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
/// The allocations of at least this many bytes.
static LARGE: AtomicUsize = AtomicUsize::new(usize::MAX);
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    let live = LIVE.fetch_add(size as isize, Relaxed) + size as isize;
    PEAK.fetch_max(live, Relaxed);
    if size >= LARGE.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
    }
}

// SAFETY: each call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Loss = Box<dyn Fn(&[Var]) -> Result<Tensor>>;

/// A loss, its inputs' shape, their number, and the limits: the peak over the size of an input, and the number of
/// allocations of at least half that size.
struct Case {
    name: &'static str,
    shape: (usize, usize),
    inputs: usize,
    peak: f64,
    large: usize,
    loss: Loss,
}

/// Binary cross-entropy and soft margin take three temporaries and one for the digits that `1 + y` rounds away in
/// `log(1 + y)`.
fn cases() -> Result<Vec<Case>> {
    let device = &Device::Cpu;
    let square = (1024, 1024);
    let uniform = |shape: (usize, usize), low, high| Tensor::rand(low, high, shape, device);
    let (y, p) = (uniform(square, -2f32, 2.0)?, uniform(square, 0.05f32, 0.95)?);
    let side = y.sign()?;
    let bit = side.affine(0.5, 0.5)?;
    let (rows, wide) = (4096usize, (4096, 1000));
    let classes = Tensor::from_iter((0..rows as u32).map(|i| i * 7 % 1000), device)?;
    let shares = uniform(wide, 0f32, 0.002)?;
    let list = |row: i64| (0..1000).map(move |i| if i < 3 { (row * 7 + i) % 1000 } else { -1 });
    let lists = Tensor::from_iter((0..rows as i64).flat_map(list), device)?.reshape(wide)?;
    let deep = (4096, 256);
    let pairs = Tensor::from_iter((0..rows).map(|i| if i % 2 == 0 { 1f32 } else { -1.0 }), device)?;
    let mut cases = Vec::new();
    let mut add =
        |name, shape, inputs, peak, large, loss: Loss| cases.push(Case { name, shape, inputs, peak, large, loss });
    let t = y.clone();
    add("l1", square, 1, 4.0, 8, Box::new(move |x| L1Loss::default().forward(&x[0], &t)));
    let t = y.clone();
    add("mse", square, 1, 4.0, 8, Box::new(move |x| MseLoss::default().forward(&x[0], &t)));
    let t = y.clone();
    add("huber", square, 1, 6.0, 14, Box::new(move |x| HuberLoss::default().forward(&x[0], &t)));
    let t = y.clone();
    add("smooth_l1", square, 1, 6.0, 14, Box::new(move |x| SmoothL1Loss::default().forward(&x[0], &t)));
    let t = bit.clone();
    add("bce", square, 1, 6.0, 19, Box::new(move |x| BceLoss::default().forward(&x[0], &t)));
    let t = bit.clone();
    add("bce_with_logits", square, 1, 6.0, 20, Box::new(move |x| BceWithLogitsLoss::default().forward(&x[0], &t)));
    add(
        "multilabel_soft_margin",
        square,
        1,
        6.0,
        20,
        Box::new(move |x| MultiLabelSoftMarginLoss::default().forward(&x[0], &bit)),
    );
    let t = side.clone();
    add("soft_margin", square, 1, 6.0, 17, Box::new(move |x| SoftMarginLoss::default().forward(&x[0], &t)));
    let t = side.clone();
    add("hinge_embedding", square, 1, 6.0, 12, Box::new(move |x| HingeEmbeddingLoss::default().forward(&x[0], &t)));
    add(
        "margin_ranking",
        square,
        2,
        7.0,
        14,
        Box::new(move |x| MarginRankingLoss { margin: 0.5, ..Default::default() }.forward(&x[0], &x[1], &side)),
    );
    let t = p.clone();
    add("kl_div", square, 1, 5.0, 12, Box::new(move |x| KlDivLoss::default().forward(&x[0], &t)));
    let t = p.clone();
    add("poisson_nll", square, 1, 4.0, 9, Box::new(move |x| PoissonNllLoss::default().forward(&x[0], &t)));
    add("gaussian_nll", square, 1, 6.0, 18, Box::new(move |x| GaussianNllLoss::default().forward(&x[0], &y, &p)));
    let t = classes.clone();
    add("cross_entropy", wide, 1, 4.0, 10, Box::new(move |x| CrossEntropyLoss::default().forward(&x[0], &t)));
    let t = classes.clone();
    add(
        "cross_entropy, smoothed",
        wide,
        1,
        5.0,
        12,
        Box::new(move |x| CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() }.forward(&x[0], &t)),
    );
    add(
        "cross_entropy, probabilities",
        wide,
        1,
        5.0,
        12,
        Box::new(move |x| CrossEntropyLoss::default().forward(&x[0], &shares)),
    );
    add("multi_margin", wide, 1, 5.0, 12, Box::new(move |x| MultiMarginLoss::default().forward(&x[0], &classes)));
    add(
        "multilabel_margin",
        wide,
        1,
        20.0,
        400,
        Box::new(move |x| MultiLabelMarginLoss::default().forward(&x[0], &lists)),
    );
    add(
        "cosine_embedding",
        deep,
        2,
        6.0,
        16,
        Box::new(move |x| CosineEmbeddingLoss::default().forward(&x[0], &x[1], &pairs)),
    );
    add("triplet_margin", deep, 3, 8.0, 20, Box::new(|x| TripletMarginLoss::default().forward(&x[0], &x[1], &x[2])));
    Ok(cases)
}

/// The peak of live memory over the size of an input, and the number of large allocations.
fn measure(case: &Case) -> Result<(f64, usize)> {
    let inputs = (0..case.inputs)
        .map(|_| Var::from_tensor(&Tensor::rand(0.1f32, 0.9, case.shape, &Device::Cpu)?))
        .collect::<Result<Vec<_>>>()?;
    let bytes = case.shape.0 * case.shape.1 * DType::F32.size_in_bytes();
    LARGE.store(bytes / 2, Relaxed);
    COUNT.store(0, Relaxed);
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let loss = (case.loss)(&inputs)?;
    let gradients = loss.backward()?;
    let measured = ((PEAK.load(Relaxed) - before) as f64 / bytes as f64, COUNT.load(Relaxed));
    assert!(inputs.iter().all(|input| gradients.get(input).is_some()), "{} has no gradient", case.name);
    Ok(measured)
}

/// Runs in a process of its own, whose allocations nothing else counts among.
#[test]
#[ignore = "run by memory_and_temporaries_stay_within_limits"]
fn child() -> Result<()> {
    let mut faults = Vec::new();
    for case in cases()? {
        let (peak, large) = measure(&case)?;
        println!("{:<30} peak {peak:5.2} of {:4}   temporaries {large:5} of {:4}", case.name, case.peak, case.large);
        // Scalars, indices and the graph itself take some kilobytes.
        if peak > case.peak + 0.02 || large > case.large {
            faults.push(case.name);
        }
    }
    assert!(faults.is_empty(), "above the limits: {faults:?}");
    Ok(())
}

#[test]
fn memory_and_temporaries_stay_within_limits() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env("CANDLE_LOSSES_KERNELS", "off")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    println!("{printed}");
    assert!(child.status.success(), "{printed}{}", String::from_utf8_lossy(&child.stderr));
}
