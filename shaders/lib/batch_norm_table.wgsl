// A batch norm that is applied where its result is read: v = (x - center) * scale + shift, and 0 below params.floor.
//
// The including file has floor and in_c, the channels of x, in its Params, and the table [4, C] of batch_norm.wgsl's finalize:
// center, scale and shift of each channel.

fn normalised(x: f32, c: u32) -> f32 {
    let v = (x - table[c]) * table[params.in_c + c] + table[2u * params.in_c + c];
    return select(v, 0.0, v < params.floor);
}
