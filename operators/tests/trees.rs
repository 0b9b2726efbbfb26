//! Trees against the plainest evaluator there is: one walk after the other over the nodes as they were given.

use foreshock_operators::model::float32;
use foreshock_operators::model::forest::{
    DEPTH_MAX, FEATURES_MAX, NODES_MAX, Slots, Split, TREES_MAX, TreeNode, Trees, logit,
};
use proptest::prelude::*;

/// What XGBoost does, one tree and one node at a time.
fn walked(base_margin: f32, trees: &[Vec<TreeNode>], row: &[f32]) -> f32 {
    fn leaf(tree: &[TreeNode], at: usize, row: &[f32]) -> f32 {
        match tree[at] {
            TreeNode::Leaf(value) => value,
            TreeNode::Split(split) => {
                let value = row[split.feature];
                let goes_left = if value.is_nan() { split.null_left } else { value < split.threshold };
                leaf(tree, if goes_left { split.left } else { split.right }, row)
            }
        }
    }
    trees.iter().fold(base_margin, |sum, tree| sum + leaf(tree, 0, row))
}

/// A tree as a shape: what stands at each place, and below.
#[derive(Clone, Debug)]
enum Shape {
    Leaf(f32),
    Split(usize, f32, bool, Box<(Shape, Shape)>),
}

const FEATURES: usize = 5;

/// Numbers of which some are equal, so that rows meet thresholds.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        (-4i8..4).prop_map(|v| f32::from(v) / 2.0),
        -3.0f32..3.0,
        prop::sample::select(vec![0.0, -0.0, f32::MIN_POSITIVE, 1e-40, -1e-40, f32::MAX, f32::MIN])
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    number().prop_map(Shape::Leaf).prop_recursive(7, 64, 2, |inner| {
        (0..FEATURES, number(), any::<bool>(), inner.clone(), inner).prop_map(
            |(feature, threshold, null_left, left, right)| {
                Shape::Split(feature, threshold, null_left, Box::new((left, right)))
            },
        )
    })
}

/// Lays a shape out depth first, as XGBoost wouldn't, with a node in between that nothing leads to.
fn listed(shape: &Shape) -> Vec<TreeNode> {
    fn add(shape: &Shape, nodes: &mut Vec<TreeNode>) -> usize {
        let at = nodes.len();
        nodes.push(TreeNode::Leaf(f32::NAN));
        nodes[at] = match shape {
            Shape::Leaf(value) => TreeNode::Leaf(*value),
            Shape::Split(feature, threshold, null_left, below) => {
                let right = add(&below.1, nodes);
                nodes.push(TreeNode::Leaf(f32::INFINITY));
                let left = add(&below.0, nodes);
                let (feature, threshold, null_left) = (*feature, *threshold, *null_left);
                TreeNode::Split(Split { feature, threshold, left, right, null_left })
            }
        };
        at
    }
    let mut nodes = Vec::new();
    add(shape, &mut nodes);
    nodes
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => number(),
        1 => prop::sample::select(vec![f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn walks_come_to_the_same_bits_as_the_plain_evaluator(
        base_margin in number(),
        shapes in prop::collection::vec(shape(), 1..20),
        rows in prop::collection::vec(prop::collection::vec(value(), FEATURES), 1..20),
    ) {
        let lists: Vec<_> = shapes.iter().map(listed).collect();
        let trees = Trees::new(base_margin, &lists).unwrap();
        let json = serde_json::to_string(&trees).unwrap();
        let read: Trees = serde_json::from_str(&json).unwrap();
        let bytes = postcard::to_stdvec(&trees).unwrap();
        let restored: Trees = postcard::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read, &trees);
        prop_assert_eq!(&restored, &trees);
        for row in rows {
            let slots = Slots::new(row.iter().copied());
            let expected = walked(base_margin, &lists, &row);
            prop_assert_eq!(trees.margin(&slots).to_bits(), expected.to_bits(), "{:?}", row);
            prop_assert_eq!(read.margin(&slots).to_bits(), expected.to_bits());
        }
    }

    /// Whatever can be read can be walked.
    #[test]
    fn no_written_trees_break_a_walk(
        nodes in prop::collection::vec((prop_oneof![3 => Just(63), 2 => 0u8..62], -9.0f32..9.0), 1..40),
        odd in prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
        row in prop::collection::vec(value(), FEATURES_MAX),
    ) {
        // As many leaves as the splits need: what is cut off here may only lack some.
        let mut open = 1_usize;
        let is_wanted = |(slot, _): &(u8, f32)| {
            let was_open = open > 0;
            open = if *slot == 63 { open.saturating_sub(1) } else { open + 1 };
            was_open
        };
        let mut nodes: Vec<_> = nodes.into_iter().take_while(is_wanted).collect();
        nodes.extend(std::iter::repeat_n((63, 1.0), open));
        let mut bytes: Vec<u8> = nodes.iter().flat_map(|(slot, value)| packed(*slot, *value)).collect();
        let is_odd = odd.is_some();
        if let Some((at, byte)) = odd {
            *at.get_mut(&mut bytes) = byte;
        }
        prop_assert!(is_odd || serde_json::from_str::<Trees>(&written(&bytes)).is_ok());
        if let Ok(trees) = serde_json::from_str::<Trees>(&written(&bytes)) {
            trees.probability(&Slots::new(row));
            prop_assert!(trees.features() <= FEATURES_MAX && trees.count() >= 1);
        }
    }
}

/// A node as it is written.
fn packed(slot: u8, value: f32) -> [u8; 5] {
    let [a, b, c, d] = value.to_le_bytes();
    [slot, a, b, c, d]
}

fn written(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let nodes = base64::prelude::BASE64_STANDARD.encode(bytes);
    format!("{{\"base_margin\":0.5,\"nodes\":\"{nodes}\"}}")
}

fn split(left: usize, right: usize) -> TreeNode {
    TreeNode::Split(Split { feature: 0, threshold: 0.0, left, right, null_left: true })
}

const LEAF: TreeNode = TreeNode::Leaf(1.0);

#[track_caller]
fn check_refused(trees: &[Vec<TreeNode>], problem: &str) {
    assert_eq!(Trees::new(0.0, trees).unwrap_err(), problem);
}

#[test]
fn what_is_no_tree_is_refused() {
    check_refused(&[], "found 0 trees, expected 1 to 10000");
    check_refused(&[vec![]], "tree 0: there is no node 0");
    check_refused(&[vec![LEAF], vec![split(1, 2), LEAF]], "tree 1: there is no node 2");
    check_refused(&[vec![split(0, 1), LEAF]], "tree 0: two ways lead to node 0");
    check_refused(&[vec![split(1, 1), LEAF]], "tree 0: two ways lead to node 1");
    let finite = "expected base margin, thresholds and leaves that are finite";
    check_refused(&[vec![TreeNode::Leaf(f32::NAN)]], finite);
    check_refused(&[vec![TreeNode::Leaf(f32::INFINITY)]], finite);
    assert_eq!(Trees::new(f32::NAN, &[vec![LEAF]]).unwrap_err(), finite);
    let far =
        TreeNode::Split(Split { feature: FEATURES_MAX, threshold: 0.0, left: 1, right: 2, null_left: true });
    check_refused(&[vec![far, LEAF, LEAF]], "tree 0: node 0 looks at feature 31, expected one below 31");
}

/// A tree whose longest way has so many splits.
fn chain(depth: usize) -> Vec<TreeNode> {
    let mut nodes: Vec<TreeNode> = (0..depth).flat_map(|at| [split(2 * at + 2, 2 * at + 1), LEAF]).collect();
    nodes.push(LEAF);
    nodes
}

#[test]
fn sizes_have_bounds() {
    assert_eq!(Trees::new(0.0, &[chain(DEPTH_MAX)]).unwrap().depth(), DEPTH_MAX);
    check_refused(&[chain(DEPTH_MAX + 1)], "tree 0: found a way of more than 64 splits");
    assert_eq!(Trees::new(0.0, &vec![vec![LEAF]; TREES_MAX]).unwrap().count(), TREES_MAX);
    check_refused(&vec![vec![LEAF]; TREES_MAX + 1], "found 10001 trees, expected 1 to 10000");
    let many = vec![chain(64); NODES_MAX / chain(64).len() + 1];
    check_refused(&many, "found 524385 nodes, expected at most 524288");
}

#[test]
fn written_trees_that_are_none_are_refused() {
    let leaf = [63, 0, 0, 128, 63];
    let check = |bytes: &[u8], problem: &str| {
        let error = serde_json::from_str::<Trees>(&written(bytes)).unwrap_err().to_string();
        assert!(error.starts_with(problem), "{error}");
    };
    serde_json::from_str::<Trees>(&written(&leaf)).unwrap();
    check(&[], "found 0 trees");
    check(&leaf[..4], "the last node is cut short");
    check(&[0, 0, 0, 0, 0], "the last tree is cut short");
    check(&[62, 0, 0, 0, 0], "node 0 looks at slot 62, which there is not");
    check(&[64, 0, 0, 0, 0], "node 0 looks at slot 64, which there is not");
    check(&[63, 0, 0, 192, 127], "expected base margin");
    let deep: Vec<u8> = (0..66).flat_map(|_| [[0; 5], leaf]).flatten().collect();
    check(&[&[0; 5], &deep[..], &leaf, &leaf].concat(), "found a way of more than 64 splits");
    let error = serde_json::from_str::<Trees>(r#"{"base_margin":0,"nodes":"?"}"#).unwrap_err();
    assert!(error.to_string().starts_with("nodes: "), "{error}");
}

#[test]
fn trees_tell_their_size() {
    let trees = Trees::new(0.0, &[chain(3), vec![LEAF]]).unwrap();
    assert_eq!((trees.count(), trees.nodes(), trees.depth(), trees.features()), (2, 8, 3, 1));
    assert_eq!(Trees::new(0.0, &[vec![LEAF]]).unwrap().features(), 0);
}

#[test]
fn a_probability_is_the_sigmoid_of_the_margin() {
    let at = |margin| Trees::new(margin, &[vec![TreeNode::Leaf(-0.0)]]).unwrap();
    let probability = |margin| at(margin).probability(&Slots::new([]));
    assert_eq!(probability(0.0), 0.5);
    assert_eq!((probability(200.0), probability(f32::MAX)), (1.0, 1.0));
    // e^88.7 at the most, so never 0.
    assert_eq!(probability(f32::MIN).to_bits(), probability(-88.7).to_bits());
    assert!(probability(f32::MIN) > 0.0);
    let endless = Trees::new(f32::MAX, &[vec![TreeNode::Leaf(f32::MAX)]]).unwrap();
    assert_eq!(endless.probability(&Slots::new([])), 1.0);
    let undone = [f32::MAX, f32::MIN, f32::MIN, f32::MIN].map(|value| vec![TreeNode::Leaf(value)]);
    assert!(!Trees::new(f32::MAX, &undone).unwrap().probability(&Slots::new([])).is_nan());
}

#[test]
fn the_margin_of_one_half_is_0() {
    assert_eq!(logit(0.5), 0.0);
    assert_eq!(float32::ln(1.0).to_bits(), 0.0f32.to_bits());
}

/// Bits that glibc 2.36 gave, for inputs where the nearest float would be another one.
#[test]
fn rounding_is_that_of_the_c_library() {
    let exps = [
        (0x3c6b_a654, 0x3f81_dab5),
        (0xbdf7_e15a, 0x3f62_d113),
        (0x41a1_4356, 0x4e07_7488),
        (0xbc08_fa8e, 0x3f7d_de5f),
        (0x3d6b_ee34, 0x3f87_96dd),
        (0x3e93_82d2, 0x3faa_bd42),
        (0x41b8_c18d, 0x501f_9a01),
        (0x3bfc_13a6, 0x3f80_fd0d),
        (0x410d_8662, 0x45d8_edf4),
        (0xbb24_b06e, 0x3f7f_5b85),
        (0x40dc_e526, 0x4478_ce9e),
        (0x4039_6e71, 0x4191_02bc),
    ];
    for (x, y) in exps {
        assert_eq!(float32::exp(f32::from_bits(x)).to_bits(), y, "e^{}", f32::from_bits(x));
    }
    let lns = [
        (0x3f7c_9be7, 0xbc5a_7980),
        (0x3dc8_86fd, 0xc014_b6fc),
        (0x4009_1e98, 0x3f43_1074),
        (0x40c2_cc35, 0x3fe7_3267),
        (0x3f7a_c1f0, 0xbca9_7fd3),
        (0x3cfb_0a11, 0xc05f_0f38),
        (0x3f83_6018, 0x3cd5_3969),
        (0x3fb2_9602, 0x3eaa_8433),
        (0x3f82_0960, 0x3c81_5153),
        (0x3f88_5581, 0x3d81_2ec6),
        (0x4249_a0a3, 0x407a_e35f),
        (0x3f52_445a, 0xbe49_85c1),
    ];
    for (x, y) in lns {
        assert_eq!(float32::ln(f32::from_bits(x)).to_bits(), y, "ln {}", f32::from_bits(x));
    }
}

#[test]
fn rounding_is_never_far_from_the_nearest() {
    let mut bits = 1u32;
    while bits < 0x7f80_0000 {
        let x = f32::from_bits(bits);
        if x <= 88.0 {
            for x in [x, -x] {
                let (got, exact) = (f64::from(float32::exp(x)), libm::exp(f64::from(x)));
                assert!((got - exact).abs() <= 0.51 * ulp(exact), "exp {x:e}: {got:e}");
            }
        }
        if x.is_normal() {
            let (got, exact) = (f64::from(float32::ln(x)), libm::log(f64::from(x)));
            assert!((got - exact).abs() <= 0.82 * ulp(exact), "ln {x:e}: {got:e}");
        }
        bits += 10_007;
    }
    assert_eq!((float32::exp(-104.0), float32::exp(f32::NEG_INFINITY)), (0.0, 0.0));
    assert_eq!((float32::exp(88.8), float32::exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
}

/// The distance of 32-bit floats about `x`.
fn ulp(x: f64) -> f64 {
    let near = (x.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(near.next_up()) - f64::from(near)
}
