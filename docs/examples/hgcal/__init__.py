"""The main job on real input: EdgeNet clusters the hits of the CMS high-granularity calorimeter."""
