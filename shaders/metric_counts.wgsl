// Counts for Dice and IoU, per image (all its classes pooled): logits predicted (above 0), targets wanted (above 0.5).
//
//   count     (intersection, predicted, wanted) of each chunk of one image
//   finalize  counts[n] = the sum over the chunks of image n
//
// Integers throughout: the counts are exact, in any order. One workgroup computes one chunk, then one image.
// partials[which][chunk].
// @include flat
// @include element

override WG: u32 = 64u;

struct Params {
    images: u32,       // of this launch
    image_len: u32,    // logits of an image
    chunk: u32,        // logits of a chunk; the last of an image may be shorter
    image_chunks: u32,
    first_chunk: u32,  // of this launch
    chunks: u32,       // of all launches
}

@group(0) @binding(0) var<uniform> params: Params;

var<workgroup> tile_counts: array<vec3<u32>, WG>;

fn workgroup_count(value: vec3<u32>, lid: u32) -> vec3<u32> {
    tile_counts[lid] = value;
    workgroupBarrier(); // every value is in the tile
    for (var step = WG / 2u; step > 0u; step = step / 2u) {
        if lid < step { tile_counts[lid] += tile_counts[lid + step]; }
        workgroupBarrier(); // this level's sums are in before the next level reads them
    }
    return tile_counts[0];
}

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> target_in: array<f32>;
@group(0) @binding(3) var<storage, read_write> partials: array<u32>;

@compute @workgroup_size(WG)
fn count(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let chunk = flat_group(wid, groups);
    if chunk >= params.images * params.image_chunks { return; }
    let image = chunk / params.image_chunks * params.image_len;
    let start = (chunk % params.image_chunks) * params.chunk;
    let end = min(start + params.chunk, params.image_len);
    var counts = vec3(0u);
    for (var i = image + start + lid; i < image + end; i += WG) {
        let predicted = f32(x[i]) > 0.0; // false for NaN
        let wanted = target_in[i] > 0.5;
        counts += vec3(u32(predicted && wanted), u32(predicted), u32(wanted));
    }
    counts = workgroup_count(counts, lid);
    if lid == 0u {
        for (var which = 0u; which < 3u; which++) {
            partials[which * params.chunks + params.first_chunk + chunk] = counts[which];
        }
    }
}

@group(0) @binding(1) var<storage, read> partials_in: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts_out: array<u32>;

@compute @workgroup_size(WG)
fn finalize(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let image = flat_group(wid, groups);
    if image >= params.images { return; }
    let end = (image + 1u) * params.image_chunks;
    var counts = vec3(0u);
    for (var k = image * params.image_chunks + lid; k < end; k += WG) {
        counts += vec3(partials_in[k], partials_in[k + params.chunks], partials_in[k + 2u * params.chunks]);
    }
    counts = workgroup_count(counts, lid);
    if lid == 0u {
        for (var which = 0u; which < 3u; which++) { counts_out[3u * image + which] = counts[which]; }
    }
}
