// Second stage of a weight gradient: adds up the partial sums of all chunks, in order.
//
//   partial_in [chunk, weights then biases]  ->  grad_weight, and grad_bias if there is one
//
// The including file has `chunks` and `has_bias` in its Params and says how many weights and biases there are:
//   weight_count(), bias_count()
// One invocation adds up one number. The user includes lib/flat.

@group(0) @binding(1) var<storage, read> partial_in: array<f32>;
@group(0) @binding(2) var<storage, read_write> grad_weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> grad_bias: array<f32>;

@compute @workgroup_size(WG)
fn reduce(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let weights = weight_count();
    let stride = weights + bias_count();
    if at >= stride { return; }
    var sum = 0.0;
    for (var first = 0u; first < params.chunks; first += 16u) {
        var part = 0.0; // sixteen chunks at a time: a blocked sum
        for (var chunk = first; chunk < min(first + 16u, params.chunks); chunk++) {
            part += partial_in[chunk * stride + at];
        }
        sum += part;
    }
    if at < weights {
        grad_weight[at] = sum;
    } else if params.has_bias == 1u {
        grad_bias[at - weights] = sum;
    }
}
