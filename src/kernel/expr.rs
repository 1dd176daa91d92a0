//! A formula as a recording, which tensor ops evaluate on any device.

use super::ops::{self, Scaled};
use super::scalar::Scalar;
use candle_core::{Result, Tensor, bail};
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The operations of a formula, each after those that it uses. Equal operations are recorded once.
#[derive(Default)]
pub(crate) struct Recording(RefCell<Vec<Op>>);

/// A number of a formula that is recorded: a constant, or the result of an operation.
#[derive(Clone, Copy)]
pub(crate) enum Expr<'a> {
    Constant(f64),
    Op(&'a Recording, usize),
}

/// The result of a comparison in a formula that is recorded.
#[derive(Clone, Copy)]
pub(crate) enum ExprMask<'a> {
    Constant(bool),
    Op(&'a Recording, usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Arg(usize),
    /// `x · mul + add`
    Affine(usize, f64, f64),
    Unary(Unary, usize),
    Binary(Binary, Operand, Operand),
    Compare(Comparison, usize, Operand),
    /// Mask, value where it holds, value where it does not.
    Select(usize, Operand, Operand),
}

#[derive(Clone, Copy, PartialEq)]
enum Operand {
    Op(usize),
    Constant(f64),
}

#[derive(Clone, Copy, PartialEq)]
enum Unary {
    Abs,
    Exp,
    Ln,
}

#[derive(Clone, Copy, PartialEq)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Clone, Copy, PartialEq)]
enum Comparison {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
}

impl Recording {
    pub fn arg(&self, i: usize) -> Expr<'_> {
        self.push(Op::Arg(i))
    }

    fn push(&self, op: Op) -> Expr<'_> {
        Expr::Op(self, self.index(op))
    }

    fn index(&self, op: Op) -> usize {
        let mut ops = self.0.borrow_mut();
        ops.iter().position(|known| *known == op).unwrap_or_else(|| {
            ops.push(op);
            ops.len() - 1
        })
    }

    fn get(&self, i: usize) -> Op {
        self.0.borrow()[i]
    }

    /// `x` if the operation is `-x`.
    fn negated(&self, i: usize) -> Option<usize> {
        match self.get(i) {
            Op::Affine(x, -1.0, 0.0) => Some(x),
            _ => None,
        }
    }

    fn affine(&self, x: usize, mul: f64, add: f64) -> Expr<'_> {
        match self.get(x) {
            _ if mul == 1.0 && add == 0.0 => Expr::Op(self, x),
            // Exact, as a sign rounds nothing. Other factors stay apart: a sum that is computed for its rounding must be.
            Op::Affine(y, -1.0, 0.0) => self.affine(y, -mul, add),
            _ => self.push(Op::Affine(x, mul, add)),
        }
    }

    /// An operation of two numbers, one of which at least is no constant. A sign moves to the result, where it may become
    /// a part of a factor.
    fn binary(&self, binary: Binary, a: Operand, b: Operand) -> Expr<'_> {
        let negated = |x: Operand| match x {
            Operand::Op(i) => self.negated(i).map(Operand::Op),
            Operand::Constant(_) => None,
        };
        match (binary, a, b) {
            (Binary::Add, Operand::Op(x), Operand::Constant(c)) => return self.affine(x, 1.0, c),
            (Binary::Add, Operand::Constant(c), Operand::Op(x)) => return self.affine(x, 1.0, c),
            (Binary::Sub, Operand::Op(x), Operand::Constant(c)) => return self.affine(x, 1.0, -c),
            (Binary::Sub, Operand::Constant(c), Operand::Op(x)) => return self.affine(x, -1.0, c),
            (Binary::Mul, Operand::Op(x), Operand::Constant(c)) => return self.affine(x, c, 0.0),
            (Binary::Mul, Operand::Constant(c), Operand::Op(x)) => return self.affine(x, c, 0.0),
            // A quotient is not the product with a reciprocal, which may be infinite or vanish in single precision.
            _ => {}
        }
        match (binary, negated(a), negated(b)) {
            (Binary::Add, _, Some(b)) => self.binary(Binary::Sub, a, b),
            (Binary::Add, Some(a), _) => self.binary(Binary::Sub, b, a),
            (Binary::Sub, _, Some(b)) => self.binary(Binary::Add, a, b),
            (Binary::Sub, Some(a), _) => -self.binary(Binary::Add, a, b),
            (Binary::Mul | Binary::Div, Some(a), _) => -self.binary(binary, a, b),
            (Binary::Mul | Binary::Div, _, Some(b)) => -self.binary(binary, a, b),
            _ => self.push(Op::Binary(binary, a, b)),
        }
    }
}

impl Expr<'_> {
    fn operand(self) -> Operand {
        match self {
            Self::Constant(value) => Operand::Constant(value),
            Self::Op(_, i) => Operand::Op(i),
        }
    }

    fn unary(self, unary: Unary, of_constant: fn(f64) -> f64) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(of_constant(value)),
            Self::Op(recording, i) => recording.push(Op::Unary(unary, i)),
        }
    }
}

macro_rules! binary {
    ($trait:ident, $method:ident, $binary:expr) => {
        impl $trait for Expr<'_> {
            type Output = Self;

            fn $method(self, other: Self) -> Self {
                match (self, other) {
                    (Expr::Constant(a), Expr::Constant(b)) => Expr::Constant(a.$method(b)),
                    (Expr::Op(recording, _), _) | (_, Expr::Op(recording, _)) => {
                        recording.binary($binary, self.operand(), other.operand())
                    }
                }
            }
        }
    };
}
binary!(Add, add, Binary::Add);
binary!(Sub, sub, Binary::Sub);
binary!(Mul, mul, Binary::Mul);
binary!(Div, div, Binary::Div);

impl Neg for Expr<'_> {
    type Output = Self;

    fn neg(self) -> Self {
        self * Expr::Constant(-1.0)
    }
}

impl<'a> Scalar for Expr<'a> {
    type Mask = ExprMask<'a>;

    fn constant(value: f64) -> Self {
        Self::Constant(value)
    }

    fn lt(self, other: Self) -> ExprMask<'a> {
        compare(Comparison::Lt, self, other)
    }

    fn le(self, other: Self) -> ExprMask<'a> {
        compare(Comparison::Le, self, other)
    }

    fn eq(self, other: Self) -> ExprMask<'a> {
        compare(Comparison::Eq, self, other)
    }

    fn select(mask: ExprMask<'a>, yes: Self, no: Self) -> Self {
        match mask {
            ExprMask::Constant(mask) => {
                if mask {
                    yes
                } else {
                    no
                }
            }
            ExprMask::Op(recording, mask) => recording.push(Op::Select(mask, yes.operand(), no.operand())),
        }
    }

    fn abs(self) -> Self {
        self.unary(Unary::Abs, f64::abs)
    }

    fn exp(self) -> Self {
        self.unary(Unary::Exp, f64::exp)
    }

    fn ln(self) -> Self {
        self.unary(Unary::Ln, f64::ln)
    }
}

fn compare<'a>(comparison: Comparison, a: Expr<'a>, b: Expr<'a>) -> ExprMask<'a> {
    let mirrored = match comparison {
        Comparison::Lt => Comparison::Gt,
        Comparison::Le => Comparison::Ge,
        Comparison::Gt => Comparison::Lt,
        Comparison::Ge => Comparison::Le,
        Comparison::Eq => Comparison::Eq,
    };
    let (recording, op) = match (a, b) {
        (Expr::Constant(a), Expr::Constant(b)) => {
            return ExprMask::Constant(match comparison {
                Comparison::Lt => a < b,
                Comparison::Le => a <= b,
                Comparison::Gt => a > b,
                Comparison::Ge => a >= b,
                Comparison::Eq => a == b,
            });
        }
        (Expr::Op(recording, a), b) => (recording, Op::Compare(comparison, a, b.operand())),
        // A constant on the left: the same comparison, seen from the other side.
        (Expr::Constant(_), Expr::Op(..)) => return compare(mirrored, b, a),
    };
    ExprMask::Op(recording, recording.index(op))
}

impl Recording {
    /// The values of some numbers of the recording, for these arguments. Each temporary is dropped after its last use.
    /// A constant is `None` if it is 0.
    pub fn evaluate(&self, outputs: &[Expr], args: &[&Tensor]) -> Result<Vec<Option<Scaled>>> {
        let ops = self.0.borrow();
        // A factor of an output is left to the caller, who multiplies by another one.
        let factored = |output: &Expr| match *output {
            Expr::Op(_, i) => match ops[i] {
                Op::Affine(x, mul, 0.0) if mul != 0.0 => (Operand::Op(x), mul),
                _ => (Operand::Op(i), 1.0),
            },
            Expr::Constant(value) => (Operand::Constant(value), 1.0),
        };
        let outputs = outputs.iter().map(factored).collect::<Vec<_>>();
        let mut uses = vec![0usize; ops.len()];
        for (output, _) in &outputs {
            if let Operand::Op(i) = *output {
                uses[i] += 1;
            }
        }
        for i in (0..ops.len()).rev() {
            if uses[i] > 0 {
                inputs(ops[i], |input| uses[input] += 1);
            }
        }
        let like = args[0];
        let mut results = vec![None; ops.len()];
        for (i, op) in ops.iter().enumerate() {
            if uses[i] == 0 {
                continue;
            }
            results[i] = Some(compute(*op, &results, args)?);
            inputs(*op, |input| {
                uses[input] -= 1;
                if uses[input] == 0 {
                    results[input] = None;
                }
            });
        }
        let output = |(output, factor): (Operand, f64)| match output {
            Operand::Constant(0.0) => Ok(None),
            Operand::Constant(value) => Ok(Some(Scaled { tensor: ops::constant(value, like)?, factor })),
            Operand::Op(i) => Ok(Some(Scaled { tensor: result(&results, i)?.clone(), factor })),
        };
        outputs.into_iter().map(output).collect()
    }
}

/// Calls `f` with each operation that this one uses.
fn inputs(op: Op, mut f: impl FnMut(usize)) {
    let mut operand = |x: Operand| {
        if let Operand::Op(i) = x {
            f(i);
        }
    };
    match op {
        Op::Arg(_) => {}
        Op::Affine(x, ..) | Op::Unary(_, x) => operand(Operand::Op(x)),
        Op::Binary(_, a, b) => [a, b].into_iter().for_each(operand),
        Op::Compare(_, a, b) => [Operand::Op(a), b].into_iter().for_each(operand),
        Op::Select(mask, yes, no) => [Operand::Op(mask), yes, no].into_iter().for_each(operand),
    }
}

fn result(results: &[Option<Tensor>], i: usize) -> Result<&Tensor> {
    match &results[i] {
        Some(tensor) => Ok(tensor),
        None => bail!("operation {i} of a formula has no result"),
    }
}

fn compute(op: Op, results: &[Option<Tensor>], args: &[&Tensor]) -> Result<Tensor> {
    let get = |i: usize| result(results, i);
    // A constant is a view of one number, in the shape of the arguments.
    let operand = |x: Operand| match x {
        Operand::Op(i) => get(i).cloned(),
        Operand::Constant(value) => ops::constant(value, args[0]),
    };
    match op {
        Op::Arg(i) => Ok(args[i].clone()),
        Op::Affine(x, -1.0, 0.0) => get(x)?.neg(),
        Op::Affine(x, mul, add) => get(x)?.affine(mul, add),
        Op::Unary(unary, x) => {
            let x = get(x)?;
            match unary {
                Unary::Abs => x.abs(),
                Unary::Exp => x.exp(),
                Unary::Ln => x.log(),
            }
        }
        Op::Binary(binary, a, b) => {
            let (a, b) = (operand(a)?, operand(b)?);
            match binary {
                Binary::Add => a + b,
                Binary::Sub => a - b,
                Binary::Mul => a * b,
                Binary::Div => a / b,
            }
        }
        Op::Compare(comparison, a, b) => {
            let (a, b) = (get(a)?, operand(b)?);
            match comparison {
                Comparison::Lt => a.lt(&b),
                Comparison::Le => a.le(&b),
                Comparison::Gt => a.gt(&b),
                Comparison::Ge => a.ge(&b),
                Comparison::Eq => a.eq(&b),
            }
        }
        Op::Select(mask, yes, no) => get(mask)?.where_cond(&operand(yes)?, &operand(no)?),
    }
}
