//! What a template says, as a tree.

use super::value::Value;

/// Statements in their order.
pub(super) type Block = Vec<Stmt>;

/// A statement, or text between statements.
pub(super) enum Stmt {
    Text(String),
    Output(u32, Expr),
    If(u32, Vec<(Expr, Block)>, Block),
    For(u32, Box<For>),
    Set(u32, Target, Expr),
    /// `{% set x %}...{% endset %}`, with the filters that the text goes through.
    SetBlock(u32, Target, Vec<(String, Args)>, Block),
    /// `{% filter f %}...{% endfilter %}`.
    Filter(u32, Vec<(String, Args)>, Block),
    With(u32, Vec<(Target, Expr)>, Block),
    Macro(Box<Macro>),
    /// `{% call f() %}...{% endcall %}`: the call, and its body as a macro.
    Call(u32, Expr, Box<Macro>),
    Break,
    Continue,
}

pub(super) struct For {
    pub target: Target,
    pub over: Expr,
    pub condition: Option<Expr>,
    pub body: Block,
    pub otherwise: Block,
}

pub(super) struct Macro {
    pub name: String,
    pub params: Vec<(String, Option<Expr>)>,
    pub body: Block,
}

/// What an assignment writes to.
pub(super) enum Target {
    Name(String),
    /// An attribute of a namespace.
    Attr(String, String),
    Many(Vec<Target>),
}

/// Arguments of a call, filter or test.
#[derive(Default)]
pub(super) struct Args {
    pub plain: Vec<Expr>,
    pub named: Vec<(String, Expr)>,
}

pub(super) enum Expr {
    Const(Value),
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Args),
    Filter(Box<Expr>, String, Args),
    Test(Box<Expr>, String, Args),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Cmp, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// Condition, value if it holds, value if not.
    Choice(Box<(Expr, Expr, Option<Expr>)>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}
