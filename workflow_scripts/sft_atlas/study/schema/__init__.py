"""The schema of study files, from which `config/schema.json` and the reference in `config/README.md` are generated.

"Paper" is arXiv 2506.14681; "ours" marks what the paper does not state.
"""

from sft_atlas.study.schema.measuring import Analyse, Encoder, EncoderPackage, Layers, Measure, Perplexity, Representation, Similarity
from sft_atlas.study.schema.parts import Name, Names, Part, Positive, Template, is_commit
from sft_atlas.study.schema.planning import Comparison, Device, Devices, Load, Plan
from sft_atlas.study.schema.sources import (
    Benchmark,
    BenchmarkColumns,
    Columns,
    Dataset,
    Judge,
    Model,
    Package,
    Pretraining,
    Shots,
    Source,
    Suite,
)
from sft_atlas.study.schema.study import Advise, Block, Override, Release, Select, StudyFile
from sft_atlas.study.schema.training import Hyperparameters, Lora, Recipe
