//! A part of a run file that `false` switches off: `cade = false`, or a table of settings.
//!
//! TOML has no null, and a part that is absent means its default.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

pub(super) fn serialize<T: Serialize, S: Serializer>(part: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    match part {
        Some(settings) => settings.serialize(to),
        None => to.serialize_bool(false),
    }
}

pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    struct Part<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Part<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("false or a table of settings")
        }
        fn visit_bool<E: Error>(self, on: bool) -> Result<Option<T>, E> {
            if on { Err(E::invalid_value(Unexpected::Bool(on), &self)) } else { Ok(None) }
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    from.deserialize_any(Part(PhantomData))
}

#[cfg(test)]
mod tests {
    use crate::config::RunConfig;
    use crate::model::{FusionConfig, ModelConfig};
    use crate::ops::{Cade, MixStyle};

    #[test]
    fn false_switches_a_part_off_and_survives_a_round_trip() {
        let text = "[model]\nname = \"fusion\"\ncade = false\n[model.sdir]\ngenes = false\n";
        let config: RunConfig = toml::from_str(text).unwrap();
        let ModelConfig::Fusion(fusion) = &config.model else { panic!("{config:?}") };
        assert_eq!((fusion.cade, fusion.sdir.genes), (None, None));
        assert_eq!(fusion.sdir.patches, FusionConfig::default().sdir.patches);
        assert_eq!(toml::from_str::<RunConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn mixstyle_is_off_until_it_is_given_and_is_refused_where_nobody_can_be_mixed() {
        for name in ["fusion", "survpath", "abmil"] {
            let run = |more: &str| toml::from_str::<RunConfig>(&format!("[model]\nname = \"{name}\"\n{more}")).unwrap();
            assert_eq!(run("").model.mixstyle_mut(), Some(&mut None), "{name}");
            let mut given = run("[model.mixstyle]\nalpha = 0.3\n");
            assert_eq!(given.model.mixstyle_mut(), Some(&mut Some(MixStyle { alpha: 0.3, ..MixStyle::default() })));
            assert!(given.check().is_ok());
            let alone = run("[model.mixstyle]\n[train]\nbatch = 1\n").check().unwrap_err();
            let want =
                "train.batch must be at least 2 with model.mixstyle, which mixes the patients of a batch, but is 1";
            assert_eq!(alone.to_string(), want);
            let wrong = run("[model.mixstyle]\np = 2.0\n").model.check().unwrap_err();
            assert_eq!(wrong.to_string(), "mixstyle.p must be between 0 and 1, but is 2");
        }
        assert!(toml::from_str::<RunConfig>("[model]\nname = \"snn\"\n[model.mixstyle]\n").is_err());
    }

    #[test]
    fn a_table_starts_from_the_published_settings_and_true_or_unknown_keys_are_refused() {
        let with = |cade: &str| toml::from_str::<RunConfig>(&format!("[model]\nname = \"fusion\"\n{cade}\n"));
        let ModelConfig::Fusion(fusion) = with("[model.cade]").unwrap().model else { panic!("the default model") };
        assert_eq!(fusion.cade, Some(Cade::default()));
        assert!(with("cade = true").unwrap_err().to_string().contains("false or a table"));
        assert!(with("[model.cade]\nalhpa = 1.0").unwrap_err().to_string().contains("alhpa"));
    }
}
