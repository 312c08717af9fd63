"""The builder that all data sets share."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Sequence

import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from tufl_jax.data import layouts, prepared
from tufl_jax.data.builders import shards
from tufl_jax.data.folders import FolderFiles


@dataclasses.dataclass(eq=False, kw_only=True)
class PairsConfig(tfds.core.BuilderConfig):
    """One split of a data set.

    Attributes:
        spec: fields of config.data.* that say which files it is.
        beam: as for `shards.write_all`.
    """

    spec: object = dataclasses.field(repr=False)
    beam: Sequence[str] | None = dataclasses.field(default=None, repr=False)


class PairsBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Images and label files, pixel for pixel, in the order of their names.

    Images are PNG files without compression (`reading.write_png`) in compressed
    records: as large as the originals and faster to decode. SYNTHIA's labels are
    reduced to their ids. JPEGs and other labels are kept byte for byte; labels are
    plain bytes, because tensorflow-datasets decodes GTA5's palette files to colours.
    """

    VERSION = tfds.core.Version(prepared.VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.Text(),  # b'' for unlabelled images
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__.splitlines()[0],
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict:
        """Writes all shards in parallel; TFDS takes them through `_example_writer`.

        The iterators are there for it to count the items.
        """
        spec = self.builder_config.spec
        layout = layouts.of_files(spec)
        files = FolderFiles(
            str(dl_manager.manual_dir), layout, split=spec.split, labelled=False
        )
        if files.has_labels:
            files.check_labels()
        staged = shards.write_all(
            files,
            decode=layout.decode,
            ids=layouts.raw_ids(spec),
            serialize=functools.partial(_serialize, self.info.features),
            folder=self._staging,
            beam=self.builder_config.beam,
        )
        self.info.metadata.update(staged.metadata)
        count = [functools.partial(zip, part, part) for part in staged.parts]
        return {prepared.split_name(spec): count}

    def _example_writer(self) -> shards.TakeStaged:
        return shards.TakeStaged(self._staging)

    @property
    def _staging(self) -> pathlib.Path:
        return prepared.staging(self.data_dir_root, self.builder_config.spec)


def _serialize(features, image: bytes, label: bytes, name: str) -> bytes:
    example = {"image": io.BytesIO(image), "label": label, "name": name}
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    proto = serializer.get_tf_example(features.encode_example(example))
    # Its own way to bytes orders the fields differently in every process.
    return proto.SerializeToString(deterministic=True)
