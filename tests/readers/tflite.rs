//! .tflite files: a FlatBuffer written by hand, so that every field, default and offset is known.

use bitpane::container::tflite::{ElementType, Fused, Graph, Kind, Taps, parse};
use bitpane::{Code, Error};

/// What a FlatBuffer holds.
#[derive(Clone)]
enum Node {
    Byte(i8),
    Int(i32),
    Table(Vec<(usize, Node)>),
    Tables(Vec<Node>),
    /// A list whose items are all the same one.
    Repeat(usize, Box<Node>),
    Bytes(Vec<u8>),
    Ints(Vec<i32>),
    Floats(Vec<f32>),
    Longs(Vec<i64>),
}
use Node::{Byte, Bytes, Floats, Int, Ints, Longs, Repeat, Table, Tables};

/// Writes a node, what it leads to behind it, and gives its place.
fn write(out: &mut Vec<u8>, node: &Node) -> usize {
    match node {
        Table(fields) => write_table(out, fields),
        Tables(nodes) => {
            let at = out.len();
            out.extend((nodes.len() as u32).to_le_bytes());
            out.resize(at + 4 + 4 * nodes.len(), 0);
            for (i, node) in nodes.iter().enumerate() {
                let to = write(out, node);
                lead(out, at + 4 + 4 * i, to);
            }
            at
        }
        Repeat(n, node) => {
            let at = out.len();
            out.extend((*n as u32).to_le_bytes());
            out.resize(at + 4 + 4 * n, 0);
            let to = write(out, node);
            (0..*n).for_each(|i| lead(out, at + 4 + 4 * i, to));
            at
        }
        Bytes(v) => vector(out, v.len(), v),
        Ints(v) => vector(out, v.len(), &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        Floats(v) => vector(out, v.len(), &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        Longs(v) => vector(out, v.len(), &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        Byte(_) | Int(_) => unreachable!("stands in its table"),
    }
}

fn vector(out: &mut Vec<u8>, len: usize, bytes: &[u8]) -> usize {
    let at = out.len();
    out.extend((len as u32).to_le_bytes());
    out.extend(bytes);
    at
}

fn lead(out: &mut [u8], from: usize, to: usize) {
    out[from..from + 4].copy_from_slice(&((to - from) as u32).to_le_bytes());
}

/// The table's own list of its fields, then the table: how far back that list is, and four bytes for each field.
fn write_table(out: &mut Vec<u8>, fields: &[(usize, Node)]) -> usize {
    let n_entries = fields.iter().map(|(field, _)| field + 1).max().unwrap_or(0);
    let list_len = 4 + 2 * n_entries;
    let mut entries = vec![0u16; n_entries];
    for (i, (field, _)) in fields.iter().enumerate() {
        entries[*field] = 4 + 4 * i as u16;
    }
    out.extend((list_len as u16).to_le_bytes());
    out.extend((4 + 4 * fields.len() as u16).to_le_bytes());
    out.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    let at = out.len();
    out.extend((list_len as i32).to_le_bytes());
    for (_, node) in fields {
        let inline = match node {
            Byte(x) => i32::from(*x as u8),
            Int(x) => *x,
            _ => 0,
        };
        out.extend(inline.to_le_bytes());
    }
    for (i, (_, node)) in fields.iter().enumerate().filter(|(_, (_, n))| !matches!(n, Byte(_) | Int(_))) {
        let to = write(out, node);
        lead(out, at + 4 + 4 * i, to);
    }
    at
}

fn file(model: &Node) -> Vec<u8> {
    let mut out = b"\0\0\0\0TFL3".to_vec();
    let at = write(&mut out, model);
    lead(&mut out, 0, at);
    out
}

fn model(codes: Vec<Node>, tensors: Vec<Node>, operators: Vec<Node>, buffers: Vec<Node>) -> Node {
    let graph =
        Table(vec![(0, Tables(tensors)), (1, Ints(vec![0])), (2, Ints(vec![1, 0])), (3, Tables(operators))]);
    Table(vec![(1, Tables(codes)), (2, Tables(vec![graph])), (4, Tables(buffers))])
}

fn tensor(name: &str, fields: Vec<(usize, Node)>) -> Node {
    Table([vec![(3, Bytes(name.as_bytes().to_vec()))], fields].concat())
}

/// An operator's code and the fields of its options.
type Coded = (i32, Option<Vec<(usize, Node)>>);

fn with_operators(operators: &[Coded]) -> Node {
    let codes = operators.iter().map(|(code, _)| Table(vec![(3, Int(*code))])).collect();
    let operator = |(i, (_, options)): (usize, &Coded)| {
        let options = options.clone().map(|fields| (4, Table(fields)));
        let fields = vec![(0, Int(i as i32)), (1, Ints(vec![1, -1, 0])), (2, Ints(vec![1]))];
        Table(fields.into_iter().chain(options).collect())
    };
    let tensors = vec![tensor("a", vec![]), tensor("b", vec![])];
    model(codes, tensors, operators.iter().enumerate().map(operator).collect(), vec![Table(vec![])])
}

fn error(model: &Node) -> Error {
    parse(&file(model)).map(|_| ()).expect_err("refused")
}

fn with_tensors(tensors: Vec<Node>) -> Node {
    let weights = Table(vec![(0, Bytes(vec![1, 2, 3]))]);
    model(vec![], tensors, vec![], vec![Table(vec![]), weights])
}

#[test]
fn every_field_of_a_tensor() {
    let quantization = |scale: &[f32], zero: &[i64], axis: i32| {
        (4, Table(vec![(2, Floats(scale.to_vec())), (3, Longs(zero.to_vec())), (6, Int(axis))]))
    };
    let tensors = vec![
        tensor(
            "w",
            vec![(0, Ints(vec![2, 3])), (1, Byte(9)), (2, Int(1)), quantization(&[0.5, 2.0], &[7, -8], 3)],
        ),
        tensor("plain", vec![]),
        tensor("u8", vec![(1, Byte(3)), quantization(&[1.5, 1.0], &[4], -1)]),
        tensor("i32", vec![(1, Byte(2)), (0, Ints(vec![1; 8])), quantization(&[], &[5], 0)]),
        tensor("other", vec![(1, Byte(17))]),
        tensor("much", vec![quantization(&[1.0], &[1, 2, 3], 0)]),
    ];
    let bytes = file(&with_tensors(tensors));
    let Graph { tensors, inputs, outputs, operators } = parse(&bytes).unwrap();
    assert_eq!((inputs, outputs, operators.len()), (vec![0], vec![1, 0], 0));
    let found: Vec<_> = tensors
        .iter()
        .map(|t| (t.name.as_str(), &*t.shape, t.element, t.data, &*t.scale, &*t.zero, t.axis))
        .collect();
    assert_eq!(
        found,
        [
            ("w", &[2, 3][..], ElementType::I8, &[1u8, 2, 3][..], &[0.5f32, 2.0][..], &[7i64, -8][..], 3),
            ("plain", &[], ElementType::F32, &[], &[], &[], 0),
            ("u8", &[], ElementType::U8, &[], &[1.5, 1.0], &[4, 0], usize::MAX),
            ("i32", &[1; 8], ElementType::I32, &[], &[], &[5], 0),
            ("other", &[], ElementType::Other(17), &[], &[], &[], 0),
            ("much", &[], ElementType::F32, &[], &[1.0], &[1, 2, 3], 0),
        ]
    );
    let refused = |fields| error(&with_tensors(vec![tensor("bad", fields), tensor("b", vec![])]));
    for (fields, code) in [
        (vec![(0, Ints(vec![1; 9]))], Code::BadShape),
        (vec![(0, Ints(vec![2, -1]))], Code::BadShape),
        (vec![(2, Int(2))], Code::BadOffset),
        (vec![(2, Int(-1))], Code::BadOffset),
    ] {
        let error = refused(fields);
        assert_eq!((error.code, error.tensor.as_deref()), (code, Some("bad")), "{error}");
    }
}

#[test]
fn every_field_of_an_operator() {
    let pooling = vec![(0, Byte(1)), (1, Int(2)), (2, Int(3)), (3, Int(4)), (4, Int(5)), (5, Byte(1))];
    let conv = vec![(0, Byte(1)), (1, Int(2)), (2, Int(3)), (3, Byte(3)), (4, Int(6)), (5, Int(7))];
    let depthwise = vec![(1, Int(1024)), (4, Byte(2)), (5, Int(8)), (6, Int(9))];
    let pooled = Taps { same: false, stride: [3, 2], dilation: [1, 1], size: [5, 4], fused: Fused::Relu };
    let plain = Taps { same: true, stride: [1, 1], dilation: [1, 1], size: [1, 1], fused: Fused::None };
    let wanted = [
        ((0, Some(vec![(0, Byte(1))])), Kind::Add(Fused::Relu)),
        ((0, None), Kind::Add(Fused::None)),
        ((1, Some(pooling.clone())), Kind::AveragePool2d(pooled)),
        (
            (3, Some(conv)),
            Kind::Conv2d(Taps { size: [1, 1], dilation: [7, 6], fused: Fused::Relu6, ..pooled }),
        ),
        (
            (4, Some(depthwise)),
            Kind::DepthwiseConv2d(Taps {
                stride: [1, 1024],
                dilation: [9, 8],
                fused: Fused::ReluN1To1,
                ..plain
            }),
        ),
        ((6, None), Kind::Dequantize),
        ((9, Some(vec![(0, Byte(3))])), Kind::FullyConnected(Fused::Relu6)),
        ((17, Some(pooling)), Kind::MaxPool2d(pooled)),
        ((17, Some(vec![])), Kind::MaxPool2d(plain)),
        ((19, None), Kind::Relu),
        ((21, None), Kind::Relu6),
        ((22, None), Kind::Reshape),
        ((25, None), Kind::Softmax),
        ((34, None), Kind::Pad),
        ((40, None), Kind::Mean),
        ((43, None), Kind::Squeeze),
        ((114, None), Kind::Quantize),
        ((115, None), Kind::Other(115)),
    ];
    let operators: Vec<_> = wanted.iter().map(|(operator, _)| operator.clone()).collect();
    let bytes = file(&with_operators(&operators));
    let graph = parse(&bytes).unwrap();
    for (operator, (_, kind)) in graph.operators.iter().zip(&wanted) {
        assert_eq!(operator.kind, *kind);
        assert_eq!((&*operator.inputs, &*operator.outputs), (&[Some(1), None, Some(0)][..], &[1][..]));
    }
    assert_eq!(graph.operators.len(), wanted.len());
    for (options, code) in [
        (vec![(1, Int(0))], Code::BadValue),
        (vec![(2, Int(1025))], Code::BadValue),
        (vec![(4, Int(-1))], Code::BadValue),
        (vec![(5, Int(0))], Code::BadValue),
        (vec![(3, Byte(4))], Code::UnsupportedArch),
    ] {
        assert_eq!(error(&with_operators(&[(3, Some(options))])).code, code);
    }
}

/// The older, narrower field of an operator's code, and the newer one.
#[test]
fn operator_codes_of_either_age() {
    for (fields, kind) in [
        (vec![(0, Byte(22))], Kind::Reshape),
        (vec![(0, Byte(127)), (3, Int(200))], Kind::Other(200)),
        (vec![(0, Byte(19)), (3, Int(19))], Kind::Relu),
        (vec![], Kind::Add(Fused::None)),
    ] {
        let operator = Table(vec![(1, Ints(vec![])), (2, Ints(vec![]))]);
        let tensors = vec![tensor("a", vec![]), tensor("b", vec![])];
        let bytes = file(&model(vec![Table(fields)], tensors, vec![operator], vec![Table(vec![])]));
        assert_eq!(parse(&bytes).unwrap().operators[0].kind, kind);
    }
    let negative = Table(vec![(0, Byte(-1)), (3, Int(-2))]);
    assert_eq!(error(&model(vec![negative], vec![], vec![], vec![])).code, Code::BadValue);
}

#[test]
fn places_outside_of_the_graph_are_refused() {
    let two = || vec![tensor("a", vec![]), tensor("b", vec![])];
    let code = || vec![Table(vec![(3, Int(19))])];
    let of = |operator: Vec<(usize, Node)>| model(code(), two(), vec![Table(operator)], vec![Table(vec![])]);
    assert!(parse(&file(&of(vec![(1, Ints(vec![0, 1, -1])), (2, Ints(vec![1]))]))).is_ok());
    for operator in [
        vec![(0, Int(1))],
        vec![(0, Int(-1))],
        vec![(1, Ints(vec![2]))],
        vec![(1, Ints(vec![-2]))],
        vec![(2, Ints(vec![2]))],
        vec![(2, Ints(vec![-1]))],
    ] {
        assert_eq!(error(&of(operator)).code, Code::BadOffset);
    }
    // The graph's own outputs are 1 and 0.
    let alone = model(vec![], vec![tensor("a", vec![])], vec![], vec![Table(vec![])]);
    assert_eq!(error(&alone).code, Code::BadOffset);
    let graphs = |n: usize| Table(vec![(2, Tables(vec![Table(vec![]); n]))]);
    assert!(parse(&file(&graphs(1))).is_ok());
    for n in [0, 2] {
        assert_eq!(error(&graphs(n)).code, Code::UnsupportedArch);
    }
}

#[test]
fn what_does_not_begin_as_tflite_is_refused() {
    let good = file(&with_tensors(vec![tensor("a", vec![]), tensor("b", vec![(2, Int(1))])]));
    let error = |bytes: &[u8]| parse(bytes).map(|_| ()).expect_err("refused");
    for bytes in [&good[..7], b"", b"GGUF\0\0\0\0"] {
        assert_eq!((error(bytes).code, error(bytes).offset), (Code::BadMagic, Some(0)));
    }
    for len in 8..good.len() {
        assert_eq!(error(&good[..len]).code, Code::BadOffset, "{len} of {} bytes", good.len());
    }
    assert!(parse(&good).is_ok());
    // The root leads to the last byte, to the end, and beyond.
    for (to, at) in [(good.len() - 1, good.len() - 1), (good.len(), 0), (u32::MAX as usize, 0)] {
        let mut bytes = good.clone();
        bytes[..4].copy_from_slice(&(to as u32).to_le_bytes());
        assert_eq!((error(&bytes).code, error(&bytes).offset), (Code::BadOffset, Some(at as u64)), "{to}");
    }
}

/// Lists may share what they lead to: what becomes of it is counted against the length of the file.
#[test]
fn a_small_file_makes_no_large_graph() {
    let tensor = tensor(&"n".repeat(200), vec![(0, Ints(vec![1; 8]))]);
    let graph = Table(vec![(0, Repeat(10, Box::new(tensor))), (1, Ints(vec![9])), (2, Ints(vec![0, 1, 2]))]);
    let mut bytes = file(&Table(vec![(2, Tables(vec![graph])), (4, Tables(vec![Table(vec![])]))]));
    // Ten names and shapes; lists of ten tensors, a graph, a buffer, an input and three outputs.
    let spent = 10 * (200 + 4 * 8) + 4 * (10 + 1 + 1 + 1 + 3);
    assert!(bytes.len() < 600);
    bytes.resize(spent, 0);
    assert_eq!(parse(&bytes).unwrap().tensors.len(), 10);
    assert_eq!(parse(&bytes[..spent - 1]).map(|_| ()).unwrap_err().code, Code::LimitExceeded);
}

#[test]
fn lists_have_a_limit() {
    let of = |n_tensors: usize, n_inputs: usize| {
        let tensors = Repeat(n_tensors, Box::new(Table(vec![])));
        let graph = Table(vec![(0, tensors), (1, Ints(vec![0; n_inputs]))]);
        file(&Table(vec![(2, Tables(vec![graph])), (4, Tables(vec![Table(vec![])]))]))
    };
    let bytes = of(65_536, 65_536);
    let graph = parse(&bytes).unwrap();
    assert_eq!((graph.tensors.len(), graph.inputs.len()), (65_536, 65_536));
    for bytes in [of(65_537, 1), of(1, 65_537)] {
        let error = parse(&bytes).map(|_| ()).unwrap_err();
        assert_eq!((error.code, error.message.contains("65537 of 65536")), (Code::LimitExceeded, true));
    }
}

/// A table says how far before it the list of its fields is, or with a negative number how far behind it.
#[test]
fn lists_of_fields_lie_within_the_file() {
    let good = file(&with_tensors(vec![tensor("a", vec![]), tensor("b", vec![])]));
    let root = u32::from_le_bytes(good[..4].try_into().unwrap()) as usize;
    let moved = |bytes: &[u8], to: i64| {
        let mut bytes = bytes.to_vec();
        bytes[root..root + 4].copy_from_slice(&((root as i64 - to) as i32).to_le_bytes());
        bytes
    };
    let list_len = usize::from(good[8]);
    let mut behind = good.clone();
    behind.extend(&good[8..8 + list_len]);
    assert_eq!(parse(&moved(&behind, good.len() as i64)).unwrap().tensors.len(), 2);
    for to in [-1, good.len() as i64 - 1, good.len() as i64, i64::from(i32::MAX)] {
        assert_eq!(parse(&moved(&good, to)).map(|_| ()).unwrap_err().code, Code::BadOffset, "{to}");
    }
}
