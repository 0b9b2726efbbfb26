//! Gradient-boosted trees, walked sixteen at a time.
//!
//! ```text
//! row of features ─► slots ─┬─► tree 1 ─► leaf ─┐
//!  (NaN: both ends)         ├─► tree 2 ─► leaf ─┼─ + base margin, in the order of the trees ─► sigmoid
//!                           └─► …               ┘
//! ```
//! A walk waits for memory at every node, so several go on side by side. All arithmetic is that of XGBoost, in
//! 32 bits and in its order: the probability is XGBoost's own to the last bit.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::float32;

/// The most features that trees may look at.
pub const FEATURES_MAX: usize = 31;

/// The most trees.
pub const TREES_MAX: usize = 10_000;

/// The most nodes of all trees together, 8 bytes each.
pub const NODES_MAX: usize = 1 << 19;

/// The most splits from a root to a leaf.
pub const DEPTH_MAX: usize = 64;

/// How many trees are walked side by side. 100 trees of depth 6 take 740 ns a row in fours, 615 in eights, 525 in
/// sixteens. (Sixteen rows side by side would take 360, but ticks are scored as they come.)
const LANES: usize = 16;

/// A node of a tree as programs that train them tell of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TreeNode {
    /// What the tree adds to the margin.
    Leaf(f32),
    Split(Split),
}

/// Goes left where the feature lies below the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Position among the model's features.
    pub feature: usize,
    pub threshold: f32,
    /// Position of a node in the same tree, as is `right`.
    pub left: usize,
    pub right: usize,
    /// Whether a null goes left.
    pub null_left: bool,
}

/// Trees that can be walked: every walk ends at a leaf, and no feature lies beyond [`Trees::features`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Trees {
    /// Where the sum starts.
    base_margin: f32,
    /// Tree by tree, each level by level.
    nodes: Vec<Node>,
    /// Where each tree begins, in groups that are walked together; the last is filled up with trees that add nothing.
    groups: Vec<Group>,
    /// How many trees there are.
    trees: usize,
    /// How many features the trees look at, at least: one more than the position of the last.
    features: usize,
}

/// A node as it is walked. The children of a split stand side by side; a leaf is its own left child.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    /// A split's threshold, or a leaf's value.
    value: f32,
    /// The left child's position in the upper 24 bits, the slot to look at in the lower 8.
    way: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Group {
    roots: [u32; LANES],
    /// The most splits on a way down any of the trees.
    depth: usize,
}

/// The values of one row as trees look at them.
///
/// Each feature has two slots, which differ for a null only: one holds what is below every threshold, the other
/// what is above. A split looks at the one that sends nulls its way, so nulls cost nothing.
#[derive(Clone, Debug)]
pub struct Slots([f32; SLOTS]);

/// A power of two, so that the lower bits of a node are always one of them.
const SLOTS: usize = 64;

/// The slot that leaves look at: below every value, so that a walk stays where it is.
const LEAF: usize = SLOTS - 1;

impl Slots {
    /// The row of these values in the order of the model's features, NaN being null.
    pub fn new(values: impl IntoIterator<Item = f32>) -> Slots {
        let mut slots = [f32::NEG_INFINITY; SLOTS];
        for (pair, value) in slots[..2 * FEATURES_MAX].chunks_exact_mut(2).zip(values) {
            let is_null = value.is_nan();
            pair[0] = if is_null { f32::NEG_INFINITY } else { value };
            pair[1] = if is_null { f32::INFINITY } else { value };
        }
        Slots(slots)
    }
}

impl Trees {
    /// Trees that add to `base_margin`; the first node of each is its root.
    ///
    /// # Errors
    /// Says which tree is none, or what there is too much of.
    pub fn new(base_margin: f32, trees: &[Vec<TreeNode>]) -> Result<Trees, String> {
        let mut packed = Vec::new();
        for (at, tree) in trees.iter().enumerate() {
            pack(tree, &mut packed).map_err(|problem| format!("tree {at}: {problem}"))?;
        }
        Trees::grow(base_margin, &packed)
    }

    /// How many trees there are.
    pub fn count(&self) -> usize {
        self.trees
    }

    /// How many nodes they have together.
    pub fn nodes(&self) -> usize {
        // The last is none of theirs.
        self.nodes.len() - 1
    }

    /// The most splits from a root to a leaf.
    pub fn depth(&self) -> usize {
        self.groups.iter().map(|group| group.depth).max().unwrap_or(0)
    }

    /// How many features a row must have at least.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The probability of this row; NaN where the sum of the leaves is no number.
    pub fn probability(&self, row: &Slots) -> f32 {
        sigmoid(self.margin(row))
    }

    /// The sum of the base margin and the leaves that this row comes to.
    pub fn margin(&self, row: &Slots) -> f32 {
        let mut sum = self.base_margin;
        for group in &self.groups {
            let mut places = group.roots;
            for _ in 0..group.depth {
                for place in &mut places {
                    *place = self.nodes[*place as usize].next(row);
                }
            }
            for place in places {
                sum += self.nodes[place as usize].value;
            }
        }
        sum
    }

    /// Lays out packed nodes and makes sure of all that a walk relies on.
    fn grow(base_margin: f32, packed: &[Packed]) -> Result<Trees, String> {
        if packed.len() > NODES_MAX {
            return Err(format!("found {} nodes, expected at most {NODES_MAX}", packed.len()));
        }
        if !base_margin.is_finite() || !packed.iter().all(|node| node.value.is_finite()) {
            return Err("expected base margin, thresholds and leaves that are finite".to_owned());
        }
        let mut nodes = Vec::with_capacity(packed.len() + 1);
        let (mut roots, mut depths) = (Vec::new(), Vec::new());
        while nodes.len() < packed.len() {
            roots.push(nodes.len() as u32);
            depths.push(lay_out(packed, &mut nodes)?);
        }
        if roots.is_empty() || roots.len() > TREES_MAX {
            return Err(format!("found {} trees, expected 1 to {TREES_MAX}", roots.len()));
        }
        let features = packed.iter().filter_map(|node| Some(node.feature()? + 1)).max().unwrap_or(0);
        // -0 adds nothing to any sum, not even to -0.
        let nothing = nodes.len() as u32;
        nodes.push(Node::new(-0.0, nothing as usize, LEAF));
        let groups = roots.chunks(LANES).zip(depths.chunks(LANES)).map(|(roots, depths)| {
            let mut group =
                Group { roots: [nothing; LANES], depth: depths.iter().copied().max().unwrap_or(0) };
            group.roots[..roots.len()].copy_from_slice(roots);
            group
        });
        Ok(Trees { base_margin, groups: groups.collect(), trees: roots.len(), features, nodes })
    }
}

/// 1 / (1 + e^-x) as XGBoost computes it.
fn sigmoid(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    1.0 / (float32::exp((-x).min(88.7)) + 1.0)
}

/// The margin that stands for a probability, as XGBoost computes it.
pub fn logit(probability: f32) -> f32 {
    -float32::ln(1.0 / probability - 1.0)
}

impl Node {
    fn new(value: f32, child: usize, slot: usize) -> Node {
        Node { value, way: (child << 8 | slot) as u32 }
    }

    /// The node that this row comes to next.
    #[inline(always)]
    fn next(self, row: &Slots) -> u32 {
        let is_right = row.0[self.way as usize % SLOTS] >= self.value;
        (self.way >> 8) + u32::from(is_right)
    }
}

/// A node as it is written: where its children stand follows from the order, level by level, left before right.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Packed {
    slot: u8,
    value: f32,
}

impl Packed {
    /// Bytes of a node: the slot and the value, lowest byte first.
    const BYTES: usize = 5;

    /// The feature that it looks at; `None`: it is a leaf.
    fn feature(self) -> Option<usize> {
        (usize::from(self.slot) != LEAF).then_some(usize::from(self.slot) / 2)
    }
}

/// Packs a tree level by level, whatever the order of its nodes; those that no split leads to are left out.
fn pack(tree: &[TreeNode], packed: &mut Vec<Packed>) -> Result<(), String> {
    let mut met = vec![false; tree.len()];
    let mut level = vec![0];
    for _ in 0..=DEPTH_MAX {
        let mut below = Vec::new();
        for at in level {
            let node = *tree.get(at).ok_or_else(|| format!("there is no node {at}"))?;
            if std::mem::replace(&mut met[at], true) {
                return Err(format!("two ways lead to node {at}"));
            }
            packed.push(match node {
                TreeNode::Leaf(value) => Packed { slot: LEAF as u8, value },
                TreeNode::Split(split) => {
                    if split.feature >= FEATURES_MAX {
                        let found = split.feature;
                        return Err(format!(
                            "node {at} looks at feature {found}, expected one below {FEATURES_MAX}"
                        ));
                    }
                    below.extend([split.left, split.right]);
                    Packed {
                        slot: (2 * split.feature + usize::from(!split.null_left)) as u8,
                        value: split.threshold,
                    }
                }
            });
        }
        if below.is_empty() {
            return Ok(());
        }
        level = below;
    }
    Err(too_deep())
}

/// Appends the tree that begins where `nodes` end, and gives its depth.
fn lay_out(packed: &[Packed], nodes: &mut Vec<Node>) -> Result<usize, String> {
    let mut depth = 0;
    // Ends of the level that is being laid out and of the tree, as far as it is known.
    let (mut level, mut end) = (nodes.len() + 1, nodes.len() + 1);
    while nodes.len() < end {
        if nodes.len() == level {
            (depth, level) = (depth + 1, end);
        }
        let at = nodes.len();
        let node = packed.get(at).ok_or("the last tree is cut short")?;
        match node.feature() {
            None => nodes.push(Node::new(node.value, at, LEAF)),
            Some(feature) if feature < FEATURES_MAX => {
                nodes.push(Node::new(node.value, end, usize::from(node.slot)));
                end += 2;
            }
            Some(_) => return Err(format!("node {at} looks at slot {}, which there is not", node.slot)),
        }
    }
    if depth > DEPTH_MAX { Err(too_deep()) } else { Ok(depth) }
}

fn too_deep() -> String {
    format!("found a way of more than {DEPTH_MAX} splits")
}

/// Trees as they stand in control records and snapshots: 7 bytes a node.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    base_margin: f32,
    /// All nodes as [`Packed`], in base64.
    nodes: String,
}

impl From<Trees> for Written {
    fn from(trees: Trees) -> Written {
        let own = &trees.nodes[..trees.nodes()];
        let bytes: Vec<u8> = own
            .iter()
            .flat_map(|node| std::iter::once(node.way as u8).chain(node.value.to_le_bytes()))
            .collect();
        Written { base_margin: trees.base_margin, nodes: BASE64_STANDARD.encode(bytes) }
    }
}

impl TryFrom<Written> for Trees {
    type Error = String;

    fn try_from(written: Written) -> Result<Trees, String> {
        let bytes = BASE64_STANDARD.decode(&written.nodes).map_err(|error| format!("nodes: {error}"))?;
        let (nodes, rest) = bytes.as_chunks::<{ Packed::BYTES }>();
        if !rest.is_empty() {
            return Err("the last node is cut short".to_owned());
        }
        let packed: Vec<Packed> = nodes
            .iter()
            .map(|&[slot, a, b, c, d]| Packed { slot, value: f32::from_le_bytes([a, b, c, d]) })
            .collect();
        Trees::grow(written.base_margin, &packed)
    }
}
