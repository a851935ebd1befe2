//! The recipes in `data/recipes/`, built in: a recipe has the same keys as a run's `config.toml`.

/// Name and text of each recipe.
pub const RECIPES: &[(&str, &str)] = &[
    ("lgg-unext", include_str!("../../data/recipes/lgg-unext.toml")),
    ("lgg-unet", include_str!("../../data/recipes/lgg-unet.toml")),
    ("lgg-resunet", include_str!("../../data/recipes/lgg-resunet.toml")),
    ("seed-1", include_str!("../../data/recipes/seed-1.toml")),
    ("seed-2", include_str!("../../data/recipes/seed-2.toml")),
    ("seed-3", include_str!("../../data/recipes/seed-3.toml")),
];

#[cfg(test)]
mod tests {
    use super::RECIPES;
    use crate::train::TrainConfig;

    #[test]
    fn every_file_is_a_recipe_that_can_train() -> std::io::Result<()> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/data/recipes");
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let Some((_, text)) = RECIPES.iter().find(|(known, _)| *known == name) else {
                panic!("{} is not in RECIPES", path.display())
            };
            let recipe: TrainConfig = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            recipe.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        Ok(())
    }
}
