// A batch norm that is applied where its result is read: v = (x - center) * scale + shift, and 0 below params.floor.
//
// The including file has params.floor and the table [3, C] of batch_norm.wgsl's finalize: center, scale and shift of each
// channel, as table (numbers) or table4 (vectors), whichever of the two functions it uses.

/// The same three of four channels.
struct Norm4 {
    center: vec4<f32>,
    scale: vec4<f32>,
    shift: vec4<f32>,
}

fn normalised4(norm: Norm4, x: vec4<f32>) -> vec4<f32> {
    let v = (x - norm.center) * norm.scale + norm.shift;
    return select(v, vec4(0.0), v < vec4(params.floor));
}
