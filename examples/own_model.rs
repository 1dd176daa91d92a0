//! A model of your own: a template that trains a convolutional network of candle-nn on the bundled digits.
//!
//! `Parameters` provides the variables and the dropout masks, drawn from a seed. A cosine schedule lowers the learning rate to 0. A
//! second model shares the variables but builds no graph; it evaluates after each epoch. If you pass a file name, the weights are
//! saved there as safetensors, under the names of the layers, such as `conv1.weight`, as in a PyTorch `state_dict`.
//!
//!     cargo run --example own_model -- own_model.safetensors

use candle_core::{D, DType, Device, Error, Module, ModuleT, Result, Tensor};
use candle_losses::loss::CrossEntropyLoss;
use candle_losses::{Adam, Dropout, Event, Parameters, ParamsAdam, Trainer, data, evaluate};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Optimizer, VarBuilder, batch_norm, conv2d, linear};
use std::ops::ControlFlow;

struct ConvNet {
    conv1: Conv2d,
    conv2: Conv2d,
    norm: BatchNorm,
    hidden: Linear,
    dropout: Dropout,
    output: Linear,
}

impl ConvNet {
    fn new(vb: VarBuilder, dropout: Dropout) -> Result<Self> {
        let stride = Conv2dConfig { stride: 2, ..Default::default() };
        Ok(Self {
            conv1: conv2d(1, 8, 5, stride, vb.pp("conv1"))?,
            conv2: conv2d(8, 16, 5, stride, vb.pp("conv2"))?,
            norm: batch_norm(16, 1e-5, vb.pp("norm"))?,
            hidden: linear(16 * 4 * 4, 64, vb.pp("hidden"))?,
            dropout,
            output: linear(64, 10, vb.pp("output"))?,
        })
    }
}

impl ModuleT for ConvNet {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let x = images.reshape(((), 1, 28, 28))?;
        let x = self.conv1.forward(&x)?.relu()?; // (N, 8, 12, 12)
        let x = self.conv2.forward(&x)?; // (N, 16, 4, 4)
        let x = self.norm.forward_t(&x, train)?.relu()?.flatten_from(1)?;
        let x = self.dropout.forward_t(&self.hidden.forward(&x)?.relu()?, train)?;
        self.output.forward(&x)
    }
}

fn main() -> Result<()> {
    let device = Device::cuda_if_available(0)?;
    let data = data::digits(&device)?;
    let train = data.train.take(12_800)?;

    let parameters = Parameters::seeded(42);
    let dropout = parameters.dropout(0.25)?;
    let model = ConvNet::new(parameters.var_builder(DType::F32, &device), dropout.clone())?;
    let evaluated = ConvNet::new(parameters.detached_var_builder(DType::F32, &device), dropout)?;
    let accuracy = |images: &Tensor, digits: &Tensor| {
        evaluated.forward_t(images, false)?.argmax(D::Minus1)?.eq(digits)?.to_dtype(DType::F32)?.mean_all()
    };

    let peak = 2e-3;
    let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: peak, ..Default::default() })?;
    let trainer = Trainer { epochs: 2, batch_size: 64, clip_norm: Some(1.0), ..Default::default() };
    let steps = trainer.epochs * train.len().div_ceil(trainer.batch_size);
    let loss = CrossEntropyLoss::default();
    trainer.fit_with(
        &mut adam,
        &train,
        |images, digits| loss.forward(&model.forward_t(images, true)?, digits),
        |adam, event| {
            match event {
                Event::Step { completed_steps, .. } => {
                    let position = completed_steps as f64 / steps as f64;
                    adam.set_learning_rate(peak * 0.5 * (1.0 + (std::f64::consts::PI * position).cos()));
                }
                Event::Epoch { epoch, .. } => {
                    println!("Epoch {epoch}: test accuracy {:.2}%", 100.0 * evaluate(&data.test, 500, accuracy)?);
                }
                _ => {}
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        },
    )?;

    if let Some(path) = std::env::args().nth(1) {
        parameters.save(path)?;
    }
    Ok(())
}
