// The weight gradient of a convolution that a batch norm follows, where nobody wants the gradient of x: a network's first layer.
// gy, the gradient of what the batch norm reads, happens where it is read, and nobody writes the largest tensor of the step.
//
//   backward_weight_v2   as in conv2d.wgsl, of gy = scale * (gv - mean(gv) - (y - center) * slope)   (lib/batch_norm_input)
//
// The table [6, C] is that of batch_norm.wgsl's backward_merge: center, scale, shift, rstd, sum of gv, sum of gv * xhat.
// @include flat
// @include element
// @include conv2d_sizes
// @include conv2d_weight_rows
// @include batch_norm_table4

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> gradient4: array<Element4>; // of what the batch norm gives
@group(0) @binding(3) var<storage, read> y4: array<Element4>;
@group(0) @binding(4) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> partial4: array<vec4<f32>>;

/// What gy takes of four channels.
struct Behind {
    norm: Norm4,
    mean_gv: vec4<f32>,
    slope: vec4<f32>, // gy loses scale * slope for each unit of y - center
}

fn gy_norm(quad: u32, quads: u32) -> Behind {
    let mean_gv = params.inverse_count * table4[4u * quads + quad];
    let slope = params.inverse_count * table4[5u * quads + quad] * table4[3u * quads + quad];
    return Behind(norm4(quad, quads), mean_gv, slope);
}

fn gy_quad(behind: Behind, at: u32) -> vec4<f32> {
    let off = vec4<f32>(y4[at]) - behind.norm.center;
    let gv = gated4(behind.norm, vec4<f32>(gradient4[at]), off);
    return behind.norm.scale * (gv - behind.mean_gv - off * behind.slope);
}

@compute @workgroup_size(WG)
fn backward_weight_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    weight_rows_tile(flat_index(gid, groups));
}
