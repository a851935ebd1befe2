//! The recipes in `data/recipes/`, built in: a recipe has the same keys as a run's `config.toml`.

/// Name and text of each recipe.
pub const RECIPES: &[(&str, &str)] = &[
    ("seed-1", include_str!("../../data/recipes/seed-1.toml")),
    ("seed-2", include_str!("../../data/recipes/seed-2.toml")),
    ("seed-3", include_str!("../../data/recipes/seed-3.toml")),
];
