// Every invocation reads for itself: the functions of lib/lanes_together for groups of one lane.

const TOGETHER: u32 = 1u; // @tune 1 8

struct Lanes {
    side: u32,
    mine: u32,
}

fn lanes_of(row: u32, across: u32) -> Lanes { return Lanes(1u, 0u); }

/// How many of the `left` steps ahead a group takes at once, of which each lane reads for one.
fn shared_steps(lanes: Lanes, left: u32) -> u32 { return 1u; }

fn of_step(lanes: Lanes, step: u32, value: f32) -> f32 { return value; }
fn of_step4(lanes: Lanes, step: u32, value: vec4<f32>) -> vec4<f32> { return value; }
