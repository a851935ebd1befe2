// The sum of the squares of a chunk of numbers, by a workgroup.
//
// The including file takes in lib/reduce, and has count, chunk and chunks in its Params, gradient and partials.

fn sum_squares(chunk: u32, lid: u32) {
    if chunk >= params.chunks { return; }
    let end = min((chunk + 1u) * params.chunk, params.count);
    var sum = 0.0;
    for (var i = chunk * params.chunk + lid; i < end; i += WG) { sum += gradient[i] * gradient[i]; }
    sum = workgroup_sum(sum, lid);
    if lid == 0u { partials[chunk] = sum; }
}
