//! Medians, spreads, and whether two sets of times differ by more than chance.

/// What a row of results says about its samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Half of the samples are below.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// From the first to the third quartile, as a share of the median.
    pub spread: f64,
}

impl Summary {
    /// Of samples above 0; NaN for none.
    pub fn of(samples: &[f64]) -> Self {
        let [first, median, third] = quartiles(samples);
        let min = samples.iter().copied().fold(f64::INFINITY, f64::min);
        Self { median, min, spread: (third - first) / median }
    }
}

/// The three quartiles, between two samples in proportion (as numpy does); NaN for none.
pub fn quartiles(samples: &[f64]) -> [f64; 3] {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|share| {
        let at = share * (sorted.len().max(1) - 1) as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        match (sorted.get(low), sorted.get(high)) {
            (Some(low), Some(high)) => low + (high - low) * at.fract(),
            _ => f64::NAN,
        }
    })
}

/// The Mann-Whitney test of two sets of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MannWhitney {
    /// Pairs in which the sample of the first set is larger; a tie counts half.
    pub u: f64,
    /// How often chance makes sets that differ at least as much in either direction, if both are the same.
    pub p: f64,
}

/// Up to this many samples together the distribution of U is counted; above, and with ties, it is taken as normal.
const COUNTED: usize = 50;

/// Compares the ranks of two sets: no assumption on how times are distributed. As scipy's `mannwhitneyu`, with its
/// corrections for ties and continuity.
pub fn mann_whitney(first: &[f64], second: &[f64]) -> MannWhitney {
    let (n, m) = (first.len(), second.len());
    let mut all: Vec<(f64, bool)> = first.iter().map(|value| (*value, true)).collect();
    all.extend(second.iter().map(|value| (*value, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Sum of the ranks of the first set, where ties share the middle of their ranks; and sum of t^3 - t over ties of t.
    let (mut ranks, mut ties) = (0.0, 0.0);
    let mut below = 0;
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let (size, of_first) = (group.len() as f64, group.iter().filter(|(_, first)| *first).count() as f64);
        ranks += of_first * (below as f64 + (size + 1.0) / 2.0);
        ties += size.powi(3) - size;
        below += group.len();
    }
    let u = ranks - (n * (n + 1)) as f64 / 2.0;
    let larger = u.max((n * m) as f64 - u);
    let p = if n == 0 || m == 0 {
        1.0
    } else if ties == 0.0 && n + m <= COUNTED {
        counted(n, m, larger as usize)
    } else {
        let total = (n + m) as f64;
        let variance = (n * m) as f64 / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        let z = (larger - (n * m) as f64 / 2.0 - 0.5) / variance.sqrt();
        // All the same: no variance, and nothing to see.
        if variance > 0.0 { libm::erfc(z / std::f64::consts::SQRT_2) } else { 1.0 }
    };
    MannWhitney { u, p: p.min(1.0) }
}

/// Share of the orders of n + m different samples whose U is `larger` or more, times two for both directions.
///
/// The orders with each U are the coefficients of the product of (1 - q^(m+i)) / (1 - q^i) for i from 1 to n.
fn counted(n: usize, m: usize, larger: usize) -> f64 {
    let mut orders = vec![0.0; n * m + 1];
    orders[0] = 1.0;
    for i in 1..=n {
        for u in (m + i..=n * m).rev() {
            orders[u] -= orders[u - m - i];
        }
        for u in i..=n * m {
            orders[u] += orders[u - i];
        }
    }
    2.0 * orders[larger..].iter().sum::<f64>() / orders.iter().sum::<f64>()
}

/// The least p that so many samples can give: all of one set are above all of the other.
pub fn least_p(n: usize, m: usize) -> f64 {
    // n! m! / (n + m)! as a product of n factors.
    2.0 * (1..=n).map(|i| i as f64 / (m + i) as f64).product::<f64>()
}

/// Corrects the p of several tests so that one that is below a bound by chance is as rare as for a single test
/// (Holm, 1979).
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![1.0; p.len()];
    let mut most = 0.0_f64;
    for (place, index) in order.into_iter().enumerate() {
        most = most.max(p[index] * (p.len() - place) as f64).min(1.0);
        corrected[index] = most;
    }
    corrected
}

/// Median, and how far from it half of the values are, scaled so that it is the standard deviation of normal values.
pub fn robust(values: &[f64]) -> (f64, f64) {
    let [_, median, _] = quartiles(values);
    let distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    (median, 1.4826 * quartiles(&distances)[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-9, "{got} is not {want}");
    }

    #[test]
    fn quartiles_are_those_of_numpy() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), [1.75, 2.5, 3.25]);
        assert_eq!(quartiles(&[7.0]), [7.0; 3]);
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(summary, Summary { median: 2.5, min: 1.0, spread: 0.6 });
    }

    /// The example of scipy's documentation of `mannwhitneyu` (ages at which diabetes is found): U = 17, p = 0.1111
    /// counted and 0.11134688653314041 as normal.
    #[test]
    fn mann_whitney_is_that_of_scipy() {
        let (males, females) = ([19.0, 22.0, 16.0, 29.0, 24.0], [20.0, 11.0, 17.0, 12.0]);
        let test = mann_whitney(&males, &females);
        assert_eq!(test.u, 17.0);
        near(test.p, 1.0 / 9.0);
        assert_eq!(mann_whitney(&females, &males).u, 3.0);
        near(mann_whitney(&females, &males).p, 1.0 / 9.0);
        // z = (17 - 10 - 1/2) / sqrt(20 * 10 / 12).
        near(libm::erfc(6.5 / (200.0_f64 / 12.0).sqrt() / std::f64::consts::SQRT_2), 0.111_346_886_533_140_41);
    }

    /// Three against three: 20 orders, of which two are the extreme ones; the table of Mann and Whitney (1947) has
    /// P(U <= 1) = 0.1 for 3 and 3, and P(U <= 4) = 0.0286 * 2 ... for 4 and 4 P(U <= 1) = 2/70.
    #[test]
    fn counted_orders_are_those_of_the_table() {
        near(mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).p, 0.1);
        near(counted(3, 3, 8), 0.2);
        near(counted(4, 4, 15), 2.0 * 2.0 / 70.0);
        near(least_p(3, 3), 0.1);
        near(least_p(10, 10), counted(10, 10, 100));
    }

    #[test]
    fn ties_and_large_sets_are_taken_as_normal() {
        // Ranks 1.5 1.5 4 and 4 4 6: U of the first is 7 - 6 = 1; ties 2 and 3 give 6 + 24 = 30.
        let test = mann_whitney(&[1.0, 1.0, 2.0], &[2.0, 2.0, 3.0]);
        assert_eq!(test.u, 1.0);
        let variance: f64 = 9.0 / 12.0 * (7.0 - 30.0 / 30.0);
        near(test.p, libm::erfc(3.0 / variance.sqrt() / std::f64::consts::SQRT_2));
        assert_eq!(mann_whitney(&[1.0; 5], &[1.0; 5]).p, 1.0);
        assert_eq!(mann_whitney(&[], &[1.0]).p, 1.0);
        let (low, high): (Vec<f64>, Vec<f64>) = ((0..40).map(f64::from).collect(), (40..80).map(f64::from).collect());
        assert!(mann_whitney(&low, &high).p < 1e-12 && mann_whitney(&low, &low).p > 0.99);
    }

    /// The four tests 0.01, 0.04, 0.03, 0.005 (a common example): 0.03, 0.06, 0.06, 0.02.
    #[test]
    fn holm_is_that_of_the_example() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, want) in corrected.into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
            near(got, want);
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }

    #[test]
    fn an_outlier_does_not_move_the_robust_deviation() {
        let (median, deviation) = robust(&[1.0, 2.0, 3.0, 4.0, 1000.0]);
        assert_eq!((median, deviation), (3.0, 1.4826));
    }
}
