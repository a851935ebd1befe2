// Binary cross-entropy plus soft Dice from logits x and targets t, in a form that is safe in f32, and its gradient.
// Focal weighting of the first term and Tversky weighting of the second are settings: plain ones are gamma = 0, a = b = 1.
//
// With e = exp(-|x|), p = sigmoid(x), q = sigmoid(-x) = 1 - p (never computed as 1 - p), m = p*(1-t) + q*t, and
//   bce = |x| * [x >= 0 ? 1-t : t] + log(1+e)       ln m = -(|x| * [x >= 0 ? t : 1-t] + log(1+e))
// per group of images
//   I = sum p*t    D = sum(a*p*(1-t) + b*q*t)    B = sum w * m^gamma * bce       w = alpha*t + (1-alpha)*(1-t), or 1
//
//   sums           I, D, B per chunk of one image
//   finalize       loss = bce_scale * sum B + dice_scale * sum D/S,   S = 2I + D + smoothing;   group_sums[g] = I, D
//   backward_input gx = gy * (bce_scale * b' + dice_scale * p*q/S * ((a*(1-t) - b*t) * (2I + smoothing)/S - 2t * D/S))
//                  b' = w * (p*(1-t) - q*t), with gamma > 0 (t is 0 or 1)  w * (1-2t) * m^gamma * (gamma*(1-m)*bce + m)
//
// D/S = 1 - (2I + smoothing)/S is 1 - Dice for a = b = 1 (then S = P + T + smoothing) and 1 - the Tversky index with
// alpha = a/2, beta = b/2 (Salehi et al., arXiv 1706.05721); as a sum of terms that are never negative it has no
// cancellation, so a small loss keeps its digits. Focal: Lin et al., arXiv 1708.02002. exp(-|x|) may underflow to 0;
// then p or q is 0 and bce is |x| or 0.
//
// sums: one workgroup adds up one chunk. finalize: one workgroup. backward_input: one element per invocation.
// A group is an image or the whole batch; its chunks stand side by side in partials[which][chunk].
// @include flat
// @include element
// @include reduce

override WG: u32 = 64u;

struct Params {
    images: u32,       // of this launch
    image_len: u32,    // logits of an image
    chunk: u32,        // logits of a chunk; the last of an image may be shorter
    image_chunks: u32,
    first_image: u32,  // of this launch
    groups: u32,
    group_images: u32, // 1, or all
    smoothing: f32,
    bce_scale: f32,    // weight / number of logits
    dice_scale: f32,   // weight / number of groups
    false_positive: f32, // a
    false_negative: f32, // b
    focal_gamma: f32,
    focal_alpha: f32,  // below 0: w is 1
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> target_in: array<f32>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;

/// log(1 + e) for e in [0, 1]: 2 atanh(e / (2 + e)) as a series, exact to f32. `log(1 + e)` is 0 below 6e-8, and
/// WGSL allows an absolute error of 5e-7 in `log` near 1.
fn log1p(e: f32) -> f32 {
    let s = e / (2.0 + e); // at most 1/3: each term is a ninth of the one before
    let z = s * s;
    let high = 1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0 + z / 15.0));
    let low = 1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * high));
    return 2.0 * s + 2.0 * s * z * low;
}

/// sigmoid(x) and sigmoid(-x).
fn sigmoids(x: f32, e: f32) -> vec2<f32> {
    let larger = 1.0 / (1.0 + e);
    let smaller = e * larger;
    return select(vec2(smaller, larger), vec2(larger, smaller), x >= 0.0);
}

fn chunk_count() -> u32 {
    return params.groups * params.group_images * params.image_chunks;
}

/// Cross-entropy of one logit: |x| where the sign is wrong, plus `rest` = log(1+e).
fn entropy_of(x: f32, t: f32, rest: f32) -> f32 {
    return abs(x) * select(t, 1.0 - t, x >= 0.0) + rest;
}

/// w * m^gamma.
fn focal_weight(x: f32, t: f32, rest: f32) -> f32 {
    let class_weight = select(1.0, params.focal_alpha * t + (1.0 - params.focal_alpha) * (1.0 - t), params.focal_alpha >= 0.0);
    let log_m = -(abs(x) * select(1.0 - t, t, x >= 0.0) + rest);
    return class_weight * select(1.0, exp(params.focal_gamma * log_m), params.focal_gamma > 0.0);
}

@compute @workgroup_size(WG)
fn sums(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let chunk = flat_group(wid, groups);
    if chunk >= params.images * params.image_chunks { return; }
    let image = chunk / params.image_chunks * params.image_len;
    let start = (chunk % params.image_chunks) * params.chunk;
    let end = min(start + params.chunk, params.image_len);
    var both = 0.0;
    var missed = 0.0;
    var entropy = 0.0;
    for (var i = image + start + lid; i < image + end; i += WG) {
        let t = target_in[i];
        let logit = f32(x[i]);
        let e = exp(-abs(logit));
        let rest = log1p(e);
        let pq = sigmoids(logit, e);
        both += pq.x * t;
        missed += params.false_positive * pq.x * (1.0 - t) + params.false_negative * pq.y * t;
        entropy += focal_weight(logit, t, rest) * entropy_of(logit, t, rest);
    }
    both = workgroup_sum(both, lid);
    missed = workgroup_sum(missed, lid);
    entropy = workgroup_sum(entropy, lid);
    if lid == 0u {
        let chunks = chunk_count();
        let to = params.first_image * params.image_chunks + chunk;
        partials[to] = both;
        partials[to + chunks] = missed;
        partials[to + 2u * chunks] = entropy;
    }
}

@group(0) @binding(1) var<storage, read> partials_in: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> group_sums_out: array<f32>; // I, D of each group

/// One workgroup adds up the chunks of each group in turn.
@compute @workgroup_size(WG)
fn finalize(@builtin(local_invocation_index) lid: u32) {
    let chunks = chunk_count();
    let group_chunks = params.group_images * params.image_chunks;
    var entropy = 0.0;
    var dice = 0.0;
    for (var g = 0u; g < params.groups; g++) {
        var both = 0.0;
        var missed = 0.0;
        for (var k = g * group_chunks + lid; k < (g + 1u) * group_chunks; k += WG) {
            both += partials_in[k];
            missed += partials_in[k + chunks];
            entropy += partials_in[k + 2u * chunks];
        }
        both = workgroup_sum(both, lid);
        missed = workgroup_sum(missed, lid);
        dice += missed / (2.0 * both + missed + params.smoothing);
        if lid == 0u {
            group_sums_out[2u * g] = both;
            group_sums_out[2u * g + 1u] = missed;
        }
    }
    entropy = workgroup_sum(entropy, lid);
    if lid == 0u { loss[0] = params.bce_scale * entropy + params.dice_scale * dice; }
}

@group(0) @binding(3) var<storage, read> group_sums: array<f32>;
@group(0) @binding(4) var<storage, read> gy: array<f32>; // one number
@group(0) @binding(5) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.images * params.image_len { return; }
    let group = (params.first_image + at / params.image_len) / params.group_images;
    let hit = 2.0 * group_sums[2u * group] + params.smoothing;
    let missed = group_sums[2u * group + 1u];
    let total = hit + missed;

    let t = target_in[at];
    let logit = f32(x[at]);
    let e = exp(-abs(logit));
    let rest = log1p(e);
    let pq = sigmoids(logit, e);
    var slope = pq.x * (1.0 - t) - pq.y * t;
    if params.focal_gamma > 0.0 {
        let m = pq.x * (1.0 - t) + pq.y * t;
        let right = pq.y * (1.0 - t) + pq.x * t;
        slope = (1.0 - 2.0 * t) * (params.focal_gamma * right * entropy_of(logit, t, rest) + m);
    }
    let bce = focal_weight(logit, t, rest) * slope;
    // total may be as small as 1e-5: dividing twice keeps its square out of reach of underflow.
    let push = params.false_positive * (1.0 - t) - params.false_negative * t;
    let dice = pq.x * pq.y * ((push * (hit / total) - 2.0 * t * (missed / total)) / total);
    gx[at] = Element(gy[0] * (params.bce_scale * bce + params.dice_scale * dice));
}
