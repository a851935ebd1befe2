// Neighbours that need the same numbers share them: each reads a part, and they hand it around within their subgroup, the 4 to
// 128 invocations ("lanes") that a GPU runs in step. For a group of four lanes, whose tiles stand side by side:
//
//   lane           0      1      2      3
//   reads a of     k      k+1    k+2    k+3      instead of all four, as every lane would on its own
//   computes       k, with what lane 0 has read; k+1, with what lane 1 has read; ...
//
// lib/lanes_apart has the same functions for devices without subgroups, and for kernels that share nothing. Sums have the same
// order with both: the same bits.

/// Lanes of a group at most.
const TOGETHER: u32 = 8u; // @tune 1 8

/// The group of a lane.
struct Lanes {
    side: u32, // its lanes: a power of two
    mine: u32, // this one among them
}

/// The group of this lane, where tiles stand `across` side by side: `row` is the same number for all of a row. All invocations
/// of a workgroup ask together.
fn lanes_of(row: u32, across: u32) -> Lanes {
    let lane = subgroupExclusiveAdd(1u); // lanes before this one
    let all = subgroupAdd(1u);
    let side = min(TOGETHER, 1u << min(countTrailingZeros(across), countTrailingZeros(all)));
    // WGSL does not promise that neighbours in a workgroup are neighbours in a subgroup. Where they are not, nobody shares.
    var found = true;
    for (var bit = 1u; bit < side; bit *= 2u) {
        found &= (subgroupShuffleXor(lane, bit) == (lane ^ bit)) & (subgroupShuffleXor(row, bit) == row);
    }
    let together = subgroupAll(found);
    return Lanes(select(1u, side, together), select(0u, lane % side, together));
}

/// How many of the `left` steps ahead a group takes at once, of which each lane reads for one.
fn shared_steps(lanes: Lanes, left: u32) -> u32 { return min(lanes.side, left); }

/// What the lane that reads for a step has as `value`.
fn of_step(lanes: Lanes, step: u32, value: f32) -> f32 { return subgroupShuffleXor(value, lanes.mine ^ step); }
fn of_step4(lanes: Lanes, step: u32, value: vec4<f32>) -> vec4<f32> { return subgroupShuffleXor(value, lanes.mine ^ step); }
