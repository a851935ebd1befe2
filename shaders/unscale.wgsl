// Gradients of a scaled loss, for mixed precision (P. Micikevicius et al., arXiv 1710.03740; torch.amp.GradScaler): small
// ones would be 0 as 16-bit floats, so the loss is multiplied by a scale, which is taken out again here.
//
//   all gradients finite   step[3] = step[3] / scale;  after `interval` such steps the scale doubles
//   any infinite or NaN    step[3] = 0, by which the optimizer leaves everything as it is;  the scale halves
//
// finalize  one workgroup adds up the squares of all chunks, which are infinite or NaN if one of them is (clip_norm.wgsl's
//           partial), and decides; the optimizer multiplies by step[3]
// @include finite
// @include reduce

override WG: u32 = 64u;

struct Params {
    chunks: u32,
    interval: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> partials_in: array<f32>;
@group(0) @binding(2) var<storage, read_write> step: array<f32>;
@group(0) @binding(3) var<storage, read_write> scale: array<f32>; // scale, steps since it changed, skipped steps

@compute @workgroup_size(WG)
fn finalize(@builtin(local_invocation_index) lid: u32) {
    var sum = 0.0;
    for (var i = lid; i < params.chunks; i += WG) { sum += partials_in[i]; }
    sum = workgroup_sum(sum, lid);
    if lid > 0u { return; }
    if !is_finite(sum) {
        step[3] = 0.0;
        scale[0] *= 0.5;
        scale[1] = 0.0;
        scale[2] += 1.0;
        return;
    }
    step[3] /= scale[0];
    scale[1] += 1.0;
    if scale[1] >= f32(params.interval) {
        scale[0] *= 2.0;
        scale[1] = 0.0;
    }
}
