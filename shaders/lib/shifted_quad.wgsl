// Four neighbouring channels of x where the shift (lib/shifted) has taken them from. The including file has x as x4.

/// Four channels of x. They lie in one group or two: `border` of them in the first.
struct Quad {
    channel4: u32, // in vectors
    shifts: vec2<i32>,
    border: u32,
}

fn quad_of(channel: u32) -> Quad {
    let last = (channel + 3u) / params.chunk;
    let border = select(4u, last * params.chunk - channel, last != channel / params.chunk);
    return Quad(channel / 4u, vec2(shift_of(channel), shift_of(channel + 3u)), border);
}

/// The quad where it was before its groups moved to this row; `here` is the row's position.
fn moved4(row: u32, here: i32, quad: Quad) -> vec4<f32> {
    let inputs4 = params.inputs / 4u;
    var result = vec4(0.0);
    if inside(here - quad.shifts.x) { result = vec4<f32>(x4[neighbour(row, -quad.shifts.x) * inputs4 + quad.channel4]); }
    if quad.border < 4u {
        var others = vec4(0.0);
        if inside(here - quad.shifts.y) {
            others = vec4<f32>(x4[neighbour(row, -quad.shifts.y) * inputs4 + quad.channel4]);
        }
        result = select(result, others, vec4(0u, 1u, 2u, 3u) >= vec4(quad.border));
    }
    return result;
}
