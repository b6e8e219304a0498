"""Every option of masr: its default, unit and meaning, on one page.

A config file (``conf/*.yaml``) holds only what differs from these defaults; ``extends: other.yaml`` starts from
another file, ``a.b=c`` on the command line overrides both (`masr.config_files` does the reading).
``masr config conf/x.yaml`` prints the resolved result, ``masr config --schema`` the JSON schema for editors.

A model that was saved before an option existed gets its default. So the default of a new option is what masr did
without it, and a default of ``model`` or ``features`` never changes.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LARGEST = 2**63 - 1
"""Of a whole number: what a tensor and a seed can hold."""
HIDDEN = r"\p{Cc}\p{Zl}\p{Zp}\u{202A}-\u{202E}\u{2066}-\u{2069}"
"""Characters that show nothing, end a line or turn text round: in no name, path or code."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Scales = Annotated[list[Annotated[float, Field(ge=0.0)]], Field(min_length=1)]
_FOLDER = rf"^\w[^/\\{HIDDEN}]*(/\w[^/\\{HIDDEN}]*)*$"
_FILE = rf"^\w[^/\\{HIDDEN}]*$"
_PATH = rf"^[^{HIDDEN}]*$"
LANGUAGE = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,34}$"
_PROMPT = r"^(all|(oracle|wrong)(\+[1-9]\d*)?)$"
FolderName = Annotated[str, Field(max_length=200, pattern=_FOLDER)]
"""``word`` or ``word/word``: it never leads out of the folder in which it is made."""
FileName = Annotated[str, Field(max_length=100, pattern=_FILE)]
"""Becomes a part of a file's name."""
AnyPath = Annotated[str, Field(max_length=4000, pattern=_PATH)]
"""Of a file or folder, wherever it is."""
LanguageCode = Annotated[str, Field(pattern=LANGUAGE)]
"""BCP-47, e.g. cs or sv-SE; it becomes a part of files' names."""
Prompt = Annotated[str, Field(pattern=_PROMPT)]
EXPECTED = {
    _FOLDER: "should be a name, or names with / between them; each should begin with a letter or digit and have no "
    "control characters",
    _FILE: "should be a name: it should begin with a letter or digit and have no / and no control characters",
    _PATH: "should be a path without control characters",
    LANGUAGE: "should be a language code of letters and digits, e.g. cs or sv-SE",
    _PROMPT: "should be all, oracle, wrong, or e.g. oracle+2",
}
"""What the patterns mean, for who meets them in an error."""
Method = Literal[
    "ctc-greedy", "ctc-prefix-beam", "attention-beam", "joint-beam", "whisper",
    "lattice-h", "lattice-hl", "lattice-hg", "lattice-hlg", "lattice-lm-rescoring",
    "nbest-oracle", "nbest-lm-rescoring", "neural-lm-rescoring", "attention-rescoring", "translation-beam",
]  # fmt: skip


def _ascending(values: list[float]) -> list[float]:
    """ValueError unless the ends of a range are in order."""
    low, high = values
    if low > high:
        raise ValueError(f"a range from {low:g} to {high:g}: the lower end comes first")
    return values


Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
"""Lower and upper end, from which a value is drawn uniformly."""
Spans = Annotated[list[Annotated[float, Field(ge=0.0)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
"""A range of seconds."""


class Section(BaseModel):
    """A group of options: strict types, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, validate_default=True)


def _named_precision(value: Any) -> Any:
    """``fp32`` was called ``no``, which YAML reads as false; models that were saved then have it so."""
    return "fp32" if value is False or value == "no" else value


class OtherCorpus(Section):
    """A further corpus, of which some splits are used beside those of the corpus that a config is about."""

    name: FileName
    """Module of masr.corpora that reads it."""
    path: AnyPath
    """Its folder, as it was published."""
    splits: Annotated[dict[FileName, FileName], Field(min_length=1)]
    """What its splits are called here: {strangers: test} brings its test split under the name strangers."""
    languages: list[LanguageCode] = []
    """BCP-47 codes to use; empty means every language of it."""


class Corpus(Section):
    name: FileName = "freevoices"
    """Module of masr.corpora that reads the corpus."""
    path: AnyPath = "corpus"
    """Folder of the corpus as it was published."""
    languages: list[LanguageCode] = []
    """BCP-47 codes to use; empty means every language of the corpus."""
    train: FileName = "train"
    """Split to train on."""
    minutes: Annotated[float, Field(ge=0.0)] = 0.0
    """Minutes of training audio of each language, drawn at random; 10 hold what 5 hold. 0 takes all there is."""
    dev: FileName = "dev"
    """Split that early stopping and the choice of the best weights look at."""
    test: Annotated[list[FileName], Field(min_length=1)] = ["test"]
    """Splits that stages 4 and 5 decode and score."""
    also: list[OtherCorpus] = []
    """Further corpora, whose splits dev and test can name, e.g. voices that nobody trained on. What they have in
    languages that the training split lacks is left out."""
    disjoint: list[Literal["text", "speaker"]] = []
    """What no recording of dev and test may share with one that is trained on, besides its id and its audio."""


class Features(Section):
    kind: Literal["kaldi", "whisper"] = "kaldi"
    """Log-mel energies of 25 ms every 10 ms at 16 kHz, as Kaldi computes them or as Whisper does."""
    mel_bins: Positive = 80
    """Their number in a frame."""
    on_the_fly: bool = False
    """Compute features while training instead of storing them in stage 1."""
    speed_perturbation: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.9, 1.0, 1.1]
    """Speeds of the training audio; every draw takes one of them. [1.0] switches it off."""
    jobs: Positive = 2
    """Processes of stage 1."""


class Tree(Section):
    """A clustered tree (Yang et al. 2025, arXiv 2501.17615), and how tokens get the vectors that are clustered."""

    embeddings: Literal["mono-map", "text-model", "recognizer"] = "mono-map"
    """Vectors of the training text of each language, mapped into one space, or of a text model, or of a recogniser."""
    folder: AnyPath | None = None
    """The text model, as Hugging Face saves it, or the recogniser, e.g. exp/conformer."""
    pooled: bool = False
    """Of a text model: the mean of its output for a token, instead of the mean of its input embeddings."""
    dimensions: Positive = 24
    """Size of Mono-Map's vectors."""
    lexicon: AnyPath | None = None
    """File of two tokens a line that correspond, from which Mono-Map starts besides the tokens that languages share."""
    linkage: Literal["ward", "complete", "average", "bisecting"] = "ward"
    """Agglomerative clustering, or 2-means from the root down with a limited depth."""
    seed: Count = 1
    """Seed of the random tree (vocab.output=balanced)."""


class TranslationVocab(Section):
    """Tokens of translations, whose text stays as the corpus has it, with case and punctuation."""

    into: LanguageCode | None = None
    """Language (BCP-47) of the translations that the corpus has; None: there is no translation."""
    kind: Literal["char", "bpe", "unigram"] = "bpe"
    """Units of text."""
    size: Positive = 1000
    """Pieces of the SentencePiece model (bpe, unigram)."""


class Vocab(Section):
    kind: Literal["char", "bpe", "unigram", "whisper"] = "char"
    """Units of text; bpe and unigram are SentencePiece models, whisper takes the tokens of model.pretrained."""
    text: Literal["normalized", "published"] = "normalized"
    """Text that the model learns to write: without case and punctuation, or as the corpus has it. Error rates are those
    of normalised text; of published text those with case and punctuation stand beside them."""
    size: Positive = 500
    """Pieces per SentencePiece model (bpe, unigram)."""
    character_coverage: Annotated[float, Field(ge=0.98, le=1.0)] = 1.0
    """Share of the characters of the training text that become pieces, the frequent ones first (SentencePiece, which
    takes no less than 0.98); the others are unknown, or bytes. 0.9995 is usual for Chinese and Japanese."""
    byte_fallback: bool = False
    """Characters that are no piece are spelled in bytes (256 pieces more) instead of being lost (SentencePiece). They
    are learnt only where training text has such characters: lower the coverage, too."""
    per_language: bool = False
    """One SentencePiece model for each language instead of one that all share."""
    language_token: bool = False
    """Start every transcript with a token of its language, so that the model also names the language."""
    output: Literal["softmax", "huffman", "clustered", "balanced"] = "softmax"
    """How the attention decoder tells tokens apart: a vector each, or decisions down a tree of frequencies (Liu et al.
    2022, arXiv 2204.03855), of similar tokens, or of random ones."""
    tree: Tree = Tree()
    translation: TranslationVocab = TranslationVocab()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "whisper" and (self.byte_fallback or self.character_coverage != 1.0):
            raise ValueError(
                "byte_fallback, character_coverage: Whisper's tokens spell every character in bytes already"
            )
        return self


class SpecAugment(Section):
    """Park et al. 2019 (arXiv 1904.08779), without time warping."""

    start_epoch: Count = 0
    """First epoch with masks: CTC finds its alignment much sooner on whole features."""
    frequency_masks: Count = 2
    """Masks over mel bins in one utterance."""
    frequency_width: Count = 27
    """Widest mask, in bins."""
    time_masks: Count = 10
    """Most masks over time; a short utterance gets fewer."""
    time_fraction: Fraction = 0.05
    """Widest time mask, and the room for one more mask, as a share of the utterance."""


class Prompts(Section):
    """Which languages a training utterance is said to be in: its own and, as users are not sure, others."""

    all: Fraction = 1.0
    """Share of utterances for which every language is allowed."""
    one: Fraction = 0.0
    """Share for which their own is the only one."""
    wrong: Fraction = 0.5
    """Probability of each wrong language in the prompts of the rest."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.all + self.one > 1:
            raise ValueError(f"all={self.all:g} and one={self.one:g} are more than all utterances")
        return self


class ConcatenateUtterances(Section):
    """Joins an utterance with others of its language: one recording, one text, pauses between them.

    The others are drawn from all that is trained on, so an epoch gets longer by them.
    """

    probability: Fraction = 0.0
    """Share of the utterances that get others appended."""
    utterances: Annotated[int, Field(ge=2, le=LARGEST)] = 3
    """Most utterances that become one."""
    pause: Spans = [0.1, 0.8]
    """Seconds between two of them."""
    max_seconds: PositiveFloat = 20.0
    """Longest result; data.max_seconds and the limits of the model hold besides."""
    same_speaker: bool = True
    """Where a speaker is known, only utterances of the same one are joined."""


class SurroundingSilence(Section):
    """Silence before and behind an utterance; what pauses between joined utterances are filled with, too."""

    probability: Fraction = 0.0
    """Share of the utterances that get silence at both ends."""
    seconds: Spans = [0.0, 1.0]
    """Length at either end; shorter where data.max_seconds leaves no room."""
    zeros: Fraction = 0.5
    """Share of the utterances whose silence is digital zeros; faint noise fills it in the others."""
    noise_decibels: Range = [-70.0, -45.0]
    """Level of the faint noise against that of the speech."""


class Reverberation(Section):
    """A room: the waveform is convolved with an impulse response whose direct path stays where it was."""

    probability: Fraction = 0.0
    """Share of the utterances that are reverberated."""
    path: AnyPath | None = None
    """Folder of impulse responses, searched to any depth (e.g. RIRS_NOISES), or a lhotse manifest of them; None:
    exponentially decaying noise."""
    rt60: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2), AfterValidator(_ascending)] = [0.1, 0.7]
    """Seconds in which that noise falls by 60 dB."""
    direct_decibels: Range = [-3.0, 12.0]
    """Energy of the direct path against that of the noise."""


class BackgroundNoise(Section):
    probability: Fraction = 0.0
    """Share of the utterances that get noise."""
    snr: Range = [5.0, 25.0]
    """Decibels by which the speech is louder; pauses do not count as speech."""
    path: AnyPath | None = None
    """Folder of noise, searched to any depth (e.g. musan/noise), or a lhotse manifest of it; None: made up."""
    kinds: Annotated[
        list[Literal["white", "pink", "brown", "hum", "tones", "babble"]], Field(min_length=1)
    ] = ["white", "pink", "brown", "hum", "tones", "babble"]  # fmt: skip
    """What is made up without a path, each equally often; babble is other training recordings, mixed."""
    voices: Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(_ascending)] = [3, 6]
    """Recordings in babble."""


class Gain(Section):
    probability: Fraction = 0.0
    """Share of the utterances whose level is changed."""
    decibels: Range = [-20.0, 6.0]
    """By how much."""


class Clipping(Section):
    probability: Fraction = 0.0
    """Share of the utterances that are clipped."""
    decibels: Spans = [0.0, 12.0]
    """What is cut off the peak."""


class Channel(Section):
    """What carried the recording."""

    probability: Fraction = 0.0
    """Share of the utterances that pass through one."""
    kinds: Annotated[
        list[Literal["equalizer", "telephone", "mu-law", "gsm", "opus", "mp3"]], Field(min_length=1)
    ] = ["equalizer", "telephone", "mu-law", "gsm", "opus", "mp3"]  # fmt: skip
    """Each equally often: another microphone; the band of a telephone (300 to 3400 Hz), as it is, in 8 bits, or as GSM
    codes it; Opus or MP3 at a low rate."""
    equalizer_decibels: Annotated[float, Field(gt=0.0)] = 6.0
    """Most that a microphone raises or lowers a frequency."""


class Augment(Section):
    """Changes of the training audio, in this order; each utterance gets others in each epoch.

    All act on the waveform: features.on_the_fly must be true.
    """

    start_epoch: Count = 0
    """First epoch with any of them."""
    concatenate: ConcatenateUtterances = ConcatenateUtterances()
    silence: SurroundingSilence = SurroundingSilence()
    reverberation: Reverberation = Reverberation()
    noise: BackgroundNoise = BackgroundNoise()
    gain: Gain = Gain()
    clipping: Clipping = Clipping()
    channel: Channel = Channel()

    @property
    def active(self) -> list[str]:
        """Names of the parts that change anything."""
        parts = ("concatenate", "silence", "reverberation", "noise", "gain", "clipping", "channel")
        return [name for name in parts if getattr(self, name).probability]


class Data(Section):
    batch_seconds: PositiveFloat = 60.0
    """Audio in one update, summed over all processes and micro-batches: updates do not depend on their number, and
    without dropout neither do losses."""
    device_seconds: PositiveFloat = 600.0
    """Most audio that one process takes at once; larger shares become accumulated micro-batches."""
    buckets: Positive = 10
    """Duration buckets from which batches of similar length are drawn."""
    short_first_epochs: Count = 0
    """First epochs that go from short to long recordings (SortaGrad, Amodei et al. 2016, arXiv 1512.02595)."""
    language_temperature: PositiveFloat = 1.0
    """Languages are drawn with p ~ hours^(1/temperature): 1 as they are, large values equally often."""
    every_language: bool = False
    """Every update has as many recordings of each language, about ``batch_seconds`` together: what a soup compares is
    always there. Then languages are drawn equally often, whatever the temperature."""
    min_seconds: PositiveFloat = 0.1
    """Shorter recordings are left out."""
    max_seconds: PositiveFloat = 30.0
    """Longer recordings are left out of training."""
    max_bad_fraction: Fraction = 0.01
    """More unusable recordings than this stop the stage."""
    augment: Augment = Augment()
    prompts: Prompts = Prompts()
    dev_prompt: Prompt = "all"
    """Languages that are allowed where dev chooses the best weights, as in decode.prompts."""
    workers: Count = 1
    """Processes that load batches; 0 loads in the training process."""


class LanguageAdapters(Section):
    """Adapters of each language, mixed as the prompt allows and the utterance suggests (csvMASR, arXiv 2410.04478).

    Of that paper only the abstract could be read; these are the choices that it leaves open.
    """

    layers: list[Positive] = []
    """Blocks (from 1) with adapters behind them; empty: no adapters."""
    bottleneck: Positive = 128
    """Inner size of an adapter."""
    weights: Literal["summary", "mean", "frame", "sum", "average"] = "summary"
    """Where the weights of the allowed languages come from: a summary vector, the mean of the frames, every frame for
    itself; or all have the weight 1 (CMM, arXiv 2107.05876), or equal weights that sum to one."""
    gate: Literal["softmax", "sigmoid"] = "softmax"
    """Weights that sum to one, or each language for itself (code-switching)."""
    shared_classifier: bool = False
    """One classifier of languages for all layers."""
    previous: bool = False
    """Weights come from the summary vector at the adapters before."""
    detached: bool = False
    """Only the language loss teaches the weights."""
    summary_start: Literal["learned", "zeros", "mean"] = "learned"
    """Summary vector before the first block: learned, zero, or the mean of the frames."""
    summary_heard: bool = False
    """Frames attend to the summary vector, too, not only it to them; then new adapters change a trained model."""
    summary_adapted: bool = False
    """Adapters act on the summary vector, too."""
    language_loss: Literal["all", "last"] = "all"
    """Layers whose weights learn from model.language_classifier.weight."""
    prompt_vectors: bool = False
    """Add a learned vector of every allowed language to the frames."""
    decoder: bool = False
    """The first and the last block of the attention decoder have adapters too, with the encoder's last weights."""
    languages: list[LanguageCode] = []
    """Languages that have adapters; empty: all. Set by `masr export --languages`."""


class Encoder(Section):
    type: Literal["conformer", "mamba"] = "conformer"
    """What brings frames together in a block: self-attention, or state spaces (ConMamba, arXiv 2407.09732)."""
    subsampling: Literal[4, 6, 8] = 4
    """Frames of 10 ms that become one encoder frame."""
    subsampling_type: Literal["separable", "plain"] = "separable"
    """Depthwise-separable convolutions, or plain ones with layer norms, each of half the channels, as ConMamba has."""
    subsampling_channels: Positive = 64
    """Channels of the (first) subsampling convolution."""
    layers: Positive = 12
    """Number of blocks."""
    width: Positive = 256
    """Size D of a frame."""
    heads: Positive = 4
    """Attention heads of a Conformer; must divide the width into even parts."""
    feedforward: Positive = 1024
    """Inner size of the feed-forward modules."""
    kernel: Positive = 31
    """Frames that the depthwise convolution sees; odd."""
    dropout: Fraction = 0.1
    """Dropout after every module, but not inside a Mamba layer."""
    state_space: Literal["mamba1", "mamba2"] = "mamba1"
    """Recurrence of a Mamba encoder: a rate of decay for each channel and number of its state, or one for each head."""
    directions: Literal["inner", "outer", "forward"] = "inner"
    """Both directions between shared projections, two whole layers joined, or forward only, which can stream."""
    state_size: Positive = 16
    """Numbers that a Mamba layer remembers for each channel."""
    expansion: Positive = 2
    """Channels of a Mamba layer for each one of the width."""
    head_size: Positive = 64
    """Channels of a head of mamba2; must divide expansion x width."""
    look_ahead: Count = 0
    """Encoder frames that a forward encoder waits for before it gives one out."""
    language_adapters: LanguageAdapters = LanguageAdapters()


class CTC(Section):
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the CTC loss."""
    upsampling: Positive = 1
    """CTC frames made of each encoder frame: room for the letters of fast speech."""
    hierarchical: bool = False
    """Use the tree of vocab.output for CTC, too, with blank as a child of the root."""
    per_language: bool = False
    """A head for each language over its own tokens, as Objective Soups has them, instead of one for all. Where a prompt
    allows several languages their heads are mixed as the language classifier says, or alike without one."""
    intermediate_layers: list[Positive] = []
    """Blocks (from 1) whose output also gets the CTC loss (Lee & Watanabe 2021, arXiv 2102.03216)."""
    intermediate_weight: Fraction = 0.3
    """Share of the CTC loss that these blocks get together."""


class TransformerDecoder(Section):
    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of its loss; 0 builds no decoder."""
    layers: Positive = 3
    """Number of Transformer blocks."""
    width: Positive = 256
    """Size of a token vector."""
    heads: Positive = 4
    """Attention heads."""
    feedforward: Positive = 1024
    """Inner size of the feed-forward modules."""
    dropout: Fraction = 0.1
    """Dropout after every module."""
    label_smoothing: Fraction = 0.1
    """Probability mass spread over all tokens."""


class AttentionDecoder(TransformerDecoder):
    smoothed: Literal["tokens", "decisions"] = "tokens"
    """With a tree: spread it over all tokens, or in each decision over its two sides, which is faster to train."""
    bias: bool = True
    """Without a tree: a bias for each token, beside its vector. The decisions of a tree have none, so false is what a
    tree is to be compared with."""


class Translation(TransformerDecoder):
    """Speech translation beside recognition: vocab.translation.into says into which language."""

    per_language: bool = False
    """A decoder for each spoken language instead of one for all."""
    encoder_layers: Count = 0
    """Transformer blocks of its own between encoder and decoder."""


class LanguageClassifier(Section):
    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the language-classification loss; 0 builds no classifier. Language adapters bring their own."""


class SelfSupervised(Section):
    """An objective on speech without text, drawn beside the transcribed speech."""

    kind: Literal["cpc", "best-rq"] = "cpc"
    """What comes next (arXiv 1807.03748), or what was masked (arXiv 2202.01855)."""
    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of its loss; 0: there is none."""
    split: FileName | None = None
    """Split of the corpus whose speech is heard; default: the training split."""
    batch_seconds: PositiveFloat = 60.0
    """Audio of it in one update."""
    context: PositiveFloat = 2.0
    """Seconds from which cpc predicts."""
    future: PositiveFloat = 1.0
    """Seconds that it predicts."""
    temperature: PositiveFloat = 0.1
    """What cpc divides cosines by."""
    windows: Annotated[int, Field(ge=2, le=8)] = 4
    """With ``negatives: recording``: pieces of the recording, as long as the future, among which cpc has to find it."""
    negatives: Literal["batch", "recording"] = "batch"
    """What cpc has to tell a frame of the future from: all frames of the futures of the recordings in its group, as in
    Objective Soups, or the frames in the same place of other pieces of the recording, as masr did at first."""
    group: Annotated[int, Field(ge=2)] = 16
    """Most recordings of an update that are compared with each other with ``negatives: batch``."""
    codes: Positive = 1024
    """Random codes of best-rq."""
    code_size: Positive = 16
    """Size of a code."""
    mask_seconds: PositiveFloat = 0.4
    """Length of what best-rq masks."""
    mask_share: Fraction = 0.4
    """Share of the speech that it masks, if masks did not overlap."""

    @property
    def least_seconds(self) -> float:
        """What a recording must last to be heard: cpc needs a whole context and a whole future."""
        return self.context + self.future if self.kind == "cpc" else 0.0

    @property
    def compared(self) -> int:
        """Most recordings that are compared with each other; 1 where each of them is heard for itself."""
        return self.group if self.kind == "cpc" and self.negatives == "batch" else 1


class Whisper(Section):
    """How a pretrained Whisper is used."""

    context: Literal["clip", "full"] = "clip"
    """It hears a recording as long as that is, or filled up with silence to 30 s, as it was trained."""
    margin: Annotated[float, Field(ge=0.0)] = 0.5
    """Seconds of silence after a clip."""
    language_codes: dict[LanguageCode, LanguageCode] = {}
    """Codes by which Whisper knows languages that it calls otherwise, or does not know: {sr-Latn: sr, ast: es}."""


class SoftPrompts(Section):
    """Vectors that are learnt before frames and tokens (LAPT, arXiv 2506.21577, of which only the abstract could be
    read)."""

    length: Count = 0
    """Vectors before the tokens, and before the frames; 0: none."""
    encoder: bool = True
    """Before the frames, too."""
    deep: bool = True
    """New ones before every block, not only before the first."""
    languages: Literal["shared", "own", "add", "hadamard", "concat"] = "shared"
    """All languages have the same ones, or each its own; or shared ones plus, or times one plus, a product of two small
    matrices of the language (LAPT); or shared ones and some of its own after them."""
    rank: Positive = 1
    """Inner size of these matrices."""
    own_length: Positive = 4
    """Vectors of its own (concat)."""
    bottleneck: Count = 0
    """Inner size of a residual network through which vectors are easier to learn; `masr export` folds it into them."""


class Lora(Section):
    """Low-rank changes of linear layers (Hu et al. 2021, arXiv 2106.09685), by peft."""

    rank: Count = 0
    """0: none."""
    alpha: Positive = 64
    """What is added is alpha / rank times the product of the two matrices."""
    dropout: Fraction = 0.0
    """Dropout on their input."""
    modules: Annotated[list[str], Field(min_length=1)] = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    """Layers of Whisper's blocks that have them."""
    per_language: bool = False
    """An expert for each language (arXiv 2506.21555), instead of one for all."""
    fused: bool = False
    """Every language uses all experts, with weights that are learnt in each block and begin with its own alone."""


class Adapt(Section):
    """What learns in the place of a pretrained model, which then stays as it is."""

    prompts: SoftPrompts = SoftPrompts()
    lora: Lora = Lora()
    routing: Literal["hard", "soft", "arrow"] = "hard"
    """Where the language is not given: what belongs to the most probable one, or to all as they are probable. Or, given
    or not, every frame and token has the experts that it suits (Arrow, arXiv 2405.11157), once they have learnt."""
    classifier: bool = False
    """Where something belongs to languages and none is given, a linear layer on the mean of the frames of Whisper as it
    comes names the language, not the decoder; it learns with model.language_classifier.weight."""
    language_codes: bool = False
    """The vector of each language's token."""
    only: list[LanguageCode] = []
    """Languages to learn now; empty: all. Where anything belongs to one language, only what belongs to these learns, so
    that a trained model (train.init_from) learns another language and forgets nothing."""
    near: dict[LanguageCode, LanguageCode] = {}
    """Trained languages from whose parameters new ones (of ``only``, if that is not empty) start, e.g. {be: ru}."""

    @property
    def by_language(self) -> bool:
        """Whether anything belongs to one language."""
        of_prompts = self.prompts.length > 0 and self.prompts.languages != "shared"
        return of_prompts or self.language_codes or (self.lora.rank > 0 and self.lora.per_language)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.classifier or self.routing != "hard") and not self.by_language:
            raise ValueError(
                "routing, classifier: nothing belongs to one language (lora.per_language, prompts.languages)"
            )
        if self.lora.fused and not self.lora.per_language:
            raise ValueError("lora.fused: there is one expert; set lora.per_language")
        if self.routing == "arrow" and (self.lora.fused or not (self.lora.rank and self.lora.per_language)):
            raise ValueError("routing=arrow chooses among experts (lora.per_language) that are not fused")
        return self


class Model(Section):
    pretrained: AnyPath | None = None
    """A Whisper (Radford et al. 2022, arXiv 2212.04356) in the format of Hugging Face: a folder, or the name of one on
    its hub. It takes the place of encoder and attention decoder, whose options are then refused."""
    whisper: Whisper = Whisper()
    adapt: Adapt = Adapt()
    normalization: Literal["utterance", "speech", "corpus"] = "utterance"
    """Mean taken off the log-mel features: each utterance's own (removes level and microphone), that of its speech
    alone, which silence around it does not move, or the corpus's."""
    encoder: Encoder = Encoder()
    ctc: CTC = CTC()
    attention_decoder: AttentionDecoder = AttentionDecoder()
    translation: Translation = Translation()
    language_classifier: LanguageClassifier = LanguageClassifier()
    self_supervised: SelfSupervised = SelfSupervised()
    spec_augment: SpecAugment = SpecAugment()


class Penalty(Section):
    """Factor of a level below the top one, and of all levels below it: min(start + rate x epoch, cap).

    It multiplies with the learning rate, which falls while it grows: train.schedule=constant keeps the two apart.
    """

    start: Annotated[float, Field(ge=0.0)] = 1.0
    """At the beginning."""
    rate: Annotated[float, Field(ge=0.0)] = 0.0
    """Added in an epoch, little by little."""
    cap: Annotated[float, Field(ge=0.0)] = 1.5
    """Largest value."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start > self.cap:
            raise ValueError(f"start={self.start:g} is above cap={self.cap:g}")
        return self


class Level(Section):
    """Objectives that share one vector of weights, which are not negative and sum to one."""

    objectives: Annotated[list[str], Field(min_length=1)]
    """<task>/<language> with * for any: asr (CTC and attention together), st (translation), lid; or cpc, best-rq."""
    weights: str = "uniform"
    """uniform, static, modo (arXiv 2305.20057), mgda, or an aggregator of torchjd, e.g. UPGrad or CAGrad(c=0.4)."""
    static: dict[str, Annotated[float, Field(ge=0.0)]] = {}
    """Weights of objectives, by the patterns above (weights=static); they are scaled to sum to one."""
    penalty: Penalty = Penalty()
    scales: dict[str, Penalty] = {}
    """Factors of single objectives, by the patterns above, on top of all weights."""


class Soup(Section):
    """Objectives in levels, the most important first (Objective Soups, Saif et al. 2025, arXiv 2508.09228).

    The encoder follows the sum of all levels, weighted; every head follows its own loss alone. Without levels training
    is plain: one sum of losses with the weights of ``model``.
    """

    levels: list[Level] = []
    """From the top level, which has no penalty, down."""
    step: PositiveFloat = 0.01
    """MoDo: size of a step of the weights."""
    pull: Annotated[float, Field(ge=0.0)] | None = None
    """MoDo: pull towards equal weights; each step goes the share ``step * pull`` of the way. None: 0.01 / step, so that
    a weight which nothing moves is halfway back after 69 steps, and weights are what the last hundred or so products
    say; one that a few noisy products drove to 0 comes back. 0.001, as it was before, takes 69,000 steps."""
    every: Positive = 2
    """Updates between two steps of the weights."""
    warmup: Count = 0
    """First updates, in which weights stay equal: until CTC has left its plateau, its gradients drown all others."""
    detect_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    """First epochs (0.5: half of the first) in which conflicts between objectives are measured in every layer; then
    only those of conflicting layers decide on weights. 0: those of all layers do, and nothing is measured."""
    detect_every: Positive = 20
    """Updates between two measurements."""
    conflict: Literal["mean", "any"] | Annotated[float, Field(gt=0.0, le=1.0)] = "mean"
    """A layer is in conflict if the cosines of all pairs are negative on average; or if any is (the paper's text); or,
    with a number, that share of layers is whose means are the lowest, negative or not."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        moves = any(level.weights == "modo" for level in self.levels)
        if self.pull is None or moves:
            return self
        if self.pull != 0.001:
            raise ValueError(f"pull={self.pull:g} has no effect: no level has weights=modo")
        self.pull = None  # configs of before it had this default say 0.001, also where nothing is pulled
        return self


class Distill(Section):
    """A student learns what a trained model says of the same speech (a Whisper, adapted or not)."""

    teacher: AnyPath | None = None
    """Folder of that model, e.g. exp/experts; None: there is none."""
    weight: Fraction = 0.5
    """Share of its say in the loss of the attention decoder."""
    temperature: PositiveFloat = 1.0
    """What logits are divided by: more than 1 tells more of what is improbable."""


class Train(Section):
    updates: Count = 10000
    """Optimiser steps; 0 keeps a pretrained model as it is, to be decoded."""
    init_from: AnyPath | None = None
    """Folder of a trained model to start from, e.g. exp/conformer; what it does not have starts at random."""
    frozen: list[
        Literal[
            "encoder", "language_adapters", "ctc", "attention_decoder", "translator", "language_classifier", "experts"
        ]
    ] = []
    """Parts of the model that do not learn; encoder is all of it but its language adapters, experts are those of a
    Whisper without the weights that fuse them."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon: orthogonalised momentum for the matrices of the blocks, AdamW for the rest; or AdamW for all."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    encoder_factor: PositiveFloat = 1.0
    """Learning rate of the encoder as a share of the learning rate."""
    soup: Soup = Soup()
    distill: Distill = Distill()
    schedule: Literal["linear", "cosine", "noam", "constant"] = "cosine"
    """After the warm-up: decay to zero linearly or as a cosine, or with the inverse square root of the update; or the
    peak to the last update, so that nothing but a penalty decides when an objective counts."""
    warmup: Count = 1000
    """Updates of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """Weight decay on matrices (not on biases and norms)."""
    clip: PositiveFloat = 5.0
    """Largest gradient norm."""
    average_decay: Fraction = 0.999
    """Decay of the running average of the weights, which is what is evaluated and kept."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], BeforeValidator(_named_precision)] = "fp32"
    """Full precision, or mixed: bf16 on GPUs and CPUs that compute with it (AVX512-BF16, AMX), fp16 on GPUs alone."""
    threads: Count = 0
    """CPU threads of one process; 0 leaves it to torch."""
    validate_every: Positive = 500
    """Updates between two evaluations on dev; also when a checkpoint is written."""
    patience: Count = 0
    """Evaluations without a better dev score (keep_by) before training stops; 0 never stops early."""
    keep: Literal["best", "last"] = "best"
    """Averaged weights that are the result: those with the best dev score, or the last, where that is not what is
    learnt."""
    keep_by: Literal["cer", "bleu", "sum"] = "cer"
    """What is best on dev, for ``keep`` and ``patience``: the lowest CER, the highest BLEU of greedy translations, or
    the lowest sum of CER and 1 - BLEU / 100; means over languages all of them."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept."""
    log_every: Positive = 50
    """Updates between two lines of the log."""
    max_bad_steps: Count = 20
    """Updates with a non-finite gradient that are skipped before training gives up."""
    changed: list[str] = []
    """Written by masr: options that were others in a part of the run, e.g. update 500: train.updates (500 -> 900)."""


class LanguageModel(Section):
    token_order: Positive = 6
    """Order of the n-gram models of tokens."""
    word_order: Positive = 3
    """Order of the n-gram models of words."""
    pooled: bool = False
    """One n-gram model of all languages; else one for each, and a search takes the language that suits best."""
    neural_width: Positive = 256
    """Size of the LSTM language model of tokens, which knows all languages."""
    neural_layers: Positive = 2
    """Its layers."""
    neural_dropout: Fraction = 0.3
    """Dropout on its inputs and outputs."""
    neural_epochs: Positive = 15
    """Passes over the training text; those with the best dev perplexity are kept."""


class Lattice(Section):
    """Searches through decoding graphs: CTC topology H, lexicon L, n-gram model G of words (of tokens without L)."""

    backend: Literal["auto", "kaldi", "k2"] = "auto"
    """auto: k2 on a GPU where it can be imported, else kaldi, which is the faster one on a CPU."""
    topology: Literal["standard", "compact"] = "standard"
    """The compact one is smaller by the size of the vocabulary; k2 calls it modified."""
    beam: PositiveFloat = 12.0
    """Paths that are this many nats behind the best one are given up."""
    max_active: Positive = 500
    """Most states that stay in a frame."""
    lattice_beam: PositiveFloat = 6.0
    """Paths within this many nats of the best one stay in a lattice."""
    lm_scales: Scales = [0.3, 0.5, 0.8]
    """Scales of G among which dev chooses."""
    length_bonuses: Scales = [0.0, 1.0]
    """Nats for each token among which dev chooses."""
    unknown_cost: Annotated[float, Field(ge=0.0)] = 1.5
    """Nats for each token of a word that the lexicon lacks."""


class Rescoring(Section):
    """A second pass over the n best of ctc-prefix-beam."""

    candidates: Positive = 50
    """Transcripts of each utterance; also the beam that finds them."""
    lm_scales: Scales = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]
    """Scales of a language model among which dev chooses."""
    attention_scales: Scales = [0.0, 0.3, 0.5, 1.0, 2.0, 4.0]
    """Scales of the attention decoder among which dev chooses."""
    length_bonuses: Scales = [0.0, 0.5, 1.0, 1.5]
    """Nats for each token among which dev chooses."""


class Segments(Section):
    """How recognition cuts a recording of any length: where nobody speaks nothing is written."""

    voice_activity: bool = True
    """Recognise only where silero-vad hears speech."""
    threshold: Fraction = 0.5
    """Probability from which a frame is speech."""
    pause: PositiveFloat = 0.5
    """Shortest pause, in seconds, at which a recording is cut."""
    padding: Annotated[float, Field(ge=0.0)] = 0.2
    """Seconds kept before and behind speech."""
    shortest: Annotated[float, Field(ge=0.0)] = 0.1
    """Shorter speech, in seconds, is taken for a noise."""
    longest: Annotated[float, Field(ge=1.0)] = 20.0
    """Longer speech without a pause, in seconds, is cut at its quietest place."""
    joined: Annotated[float, Field(ge=0.0)] = 0.0
    """Segments are joined across pauses as long as they are at most this many seconds together, as suits a Whisper,
    which always hears 30 s."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 2 * self.padding > self.pause:
            raise ValueError(f"padding={self.padding:g} on both sides is longer than pause={self.pause:g}")
        return self


class WhisperRules(Section):
    """The method ``whisper``: Whisper's own rules (Radford et al. 2022, arXiv 2212.04356, 4.5). A text that one of the
    first two thresholds finds bad is drawn again at the next temperature."""

    compression_ratio: PositiveFloat | None = 2.4
    """Largest ratio of the bytes of a text to those of its zlib compression: more repeats itself. None: any."""
    log_probability: Annotated[float, Field(le=0.0)] | None = -1.0
    """Smallest mean natural log-probability of the tokens of a text. None: any."""
    no_speech: Fraction | None = 0.6
    """Probability of there being no speech above which a text that is too improbable becomes none. None: never."""
    temperatures: Annotated[list[Annotated[float, Field(ge=0.0, le=10.0)]], Field(min_length=1)] = [
        0.0, 0.2, 0.4, 0.6, 0.8, 1.0,
    ]  # fmt: skip
    """Tried one after the other; 0 searches with decode.beam, others draw tokens with probabilities ~ p^(1 / t)."""
    timestamps: bool = False
    """Have Whisper write when each phrase begins and ends."""
    seed: Count = 1
    """Seed of what is drawn; every utterance has the same, so that it gets the same text in any batch."""


class Decode(Section):
    methods: Annotated[list[Method], Field(min_length=1)] = ["ctc-greedy"]
    """Search methods of stage 4; the first one is the headline."""
    prompts: Annotated[list[Prompt], Field(min_length=1)] = ["all"]
    """Languages that are allowed: all, the right one (oracle), or a wrong one (wrong); oracle+2 and wrong+2 allow two
    more wrong ones. Results stand in <method>, and in <method>@<prompt> for prompts other than all."""
    batch_seconds: PositiveFloat = 120.0
    """Audio decoded at once."""
    beam: Positive = 10
    """Hypotheses kept by the beam searches."""
    n_best: Positive = 1
    """Hypotheses written for each utterance."""
    ctc_weight: Fraction = 0.3
    """Weight of the CTC prefix score in joint-beam; attention gets the rest."""
    length_bonus: float = 0.0
    """Added for each token in the attention searches."""
    tree_search: Literal["all", "best-first", "greedy"] = "all"
    """Tokens of a tree that an attention search looks at: all, the 2 x beam best ones, or those that a descent of this
    width finds."""
    bias_file: AnyPath | None = None
    """File of words or phrases to expect, one a line (ctc-prefix-beam and the lattice methods)."""
    bias_boost: Annotated[float, Field(ge=0.0, le=20.0)] = 1.0
    """Nats for each token of a phrase of the bias file."""
    segments: Segments = Segments()
    lattice: Lattice = Lattice()
    rescoring: Rescoring = Rescoring()
    whisper: WhisperRules = WhisperRules()


class Config(Section):
    name: FolderName
    """Name of the experiment: results go to exp/<name>. Default: the name of the config file."""
    seed: Count = 1
    """Seed of every random choice."""
    data_dir: AnyPath = "data"
    """Where stages 0-2 write manifests, features and vocabularies."""
    corpus: Corpus = Corpus()
    features: Features = Features()
    vocab: Vocab = Vocab()
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    language_model: LanguageModel = LanguageModel()
    decode: Decode = Decode()

    @model_validator(mode="after")
    def _check(self) -> Self:
        brought = [name for other in self.corpus.also for name in other.splits]
        if twice := sorted(name for name in set(brought) if brought.count(name) > 1):
            raise ValueError(f"corpus.also: two splits are called {twice[0]}; choose another name for one of them")
        if self.train.keep_by != "cer" and not self.model.translation.weight:
            raise ValueError(f"train.keep_by={self.train.keep_by}: nothing is translated; set model.translation.weight")
        if self.data.augment.active and not self.features.on_the_fly:
            raise ValueError(
                f"data.augment ({', '.join(self.data.augment.active)}) changes waveforms, and stored features have "
                "none: set features.on_the_fly=true"
            )
        if self.model.pretrained is None:
            if self.vocab.kind == "whisper":
                raise ValueError("vocab.kind=whisper: the tokens of which Whisper? Set model.pretrained")
            if self.model.adapt != Adapt():
                raise ValueError("model.adapt: there is nothing to adapt; set model.pretrained")
            return self
        wanted = {
            "features.kind": (self.features.kind, "whisper"), "vocab.kind": (self.vocab.kind, "whisper"),
            "vocab.output": (self.vocab.output, "softmax"), "vocab.language_token": (self.vocab.language_token, False),
            "model.ctc.weight": (self.model.ctc.weight, 0.0),
        }  # fmt: skip
        wrong = [f"{name}={there} must be {right}" for name, (there, right) in wanted.items() if there != right]
        if not self.model.attention_decoder.weight:
            wrong += ["model.attention_decoder.weight must not be 0"]
        if wrong:
            raise ValueError(f"model.pretrained: with a Whisper {', '.join(wrong)}")
        return self
