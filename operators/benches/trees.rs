//! Time per row of 100 trees of depth 6, beside one walk after the other.
//!
//! `cargo bench -p foreshock-operators --bench trees`: the items are rows, so 1 / throughput is the time per row.
//! A row costs the same whether others are scored before it or not, since nothing is kept between rows; what
//! batches change is how much of the trees is still in the processor's caches.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use foreshock_operators::model::forest::{Slots, Split, TreeNode, Trees};
use foreshock_testkit::random::Random;

fn main() {
    divan::main();
}

const TREES: usize = 100;
const DEPTH: u32 = 6;
const FEATURES: usize = 12;

/// How many rows of a bench differ.
const ROWS: usize = 4_096;

/// Full trees: 127 nodes each, the children of node k at 2k + 1 and 2k + 2.
fn trees(random: &mut Random) -> Vec<Vec<TreeNode>> {
    let splits = (1 << DEPTH) - 1;
    let node = |at: usize, random: &mut Random| match at < splits {
        true => TreeNode::Split(Split {
            feature: (random.fraction() * FEATURES as f32) as usize,
            threshold: random.fraction(),
            left: 2 * at + 1,
            right: 2 * at + 2,
            null_left: random.fraction() < 0.5,
        }),
        false => TreeNode::Leaf(random.fraction() - 0.5),
    };
    (0..TREES).map(|_| (0..2 * splits + 1).map(|at| node(at, random)).collect()).collect()
}

/// Rows of which this share of the values is null.
fn rows(nulls: f32, random: &mut Random) -> Vec<[f32; FEATURES]> {
    let value = |random: &mut Random| if random.fraction() < nulls { f32::NAN } else { random.fraction() };
    (0..ROWS).map(|_| std::array::from_fn(|_| value(random))).collect()
}

/// No nulls; as in a feed at rest; in a window that is young.
const NULLS: [f32; 3] = [0.0, 0.05, 0.5];

/// Rows between which something else has the caches, as other operators do: a batch of the dataflow at most.
const BATCHES: [usize; 3] = [1, 16, 256];

#[divan::bench(args = NULLS)]
fn walks_side_by_side(bencher: Bencher, nulls: f32) {
    let random = &mut Random::new(1);
    let trees = Trees::new(0.0, &trees(random)).expect("full trees are trees");
    measure(bencher, ROWS, &rows(nulls, random), |row| trees.probability(&Slots::new(*row)));
}

#[divan::bench(args = BATCHES)]
fn walks_side_by_side_with_cold_caches(bencher: Bencher, batch: usize) {
    let random = &mut Random::new(1);
    let trees = Trees::new(0.0, &trees(random)).expect("full trees are trees");
    let (rows, mut at) = (rows(0.05, random), 0);
    // More than the caches of a core, less than a test of memory.
    let mut other = vec![0u8; 2 << 20];
    bencher
        .counter(ItemsCount::new(batch))
        .with_inputs(|| {
            other.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
            black_box(&other);
            at = (at + batch) % (ROWS - batch);
            &rows[at..at + batch]
        })
        .bench_local_refs(|rows| rows.iter().map(|row| trees.probability(&Slots::new(*row))).sum::<f32>());
}

#[divan::bench(args = NULLS)]
fn one_walk_after_the_other(bencher: Bencher, nulls: f32) {
    let random = &mut Random::new(1);
    let trees = trees(random);
    measure(bencher, ROWS, &rows(nulls, random), |row| {
        trees.iter().fold(0.0, |sum, tree| sum + leaf(tree, row))
    });
}

fn leaf(tree: &[TreeNode], row: &[f32; FEATURES]) -> f32 {
    let mut at = 0;
    loop {
        match &tree[at] {
            TreeNode::Leaf(value) => return *value,
            TreeNode::Split(split) => {
                let value = row[split.feature];
                let goes_left = if value.is_nan() { split.null_left } else { value < split.threshold };
                at = if goes_left { split.left } else { split.right };
            }
        }
    }
}

fn measure(
    bencher: Bencher,
    count: usize,
    rows: &[[f32; FEATURES]],
    mut score: impl FnMut(&[f32; FEATURES]) -> f32,
) {
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| rows.iter().map(|row| score(black_box(row))).sum::<f32>());
}
