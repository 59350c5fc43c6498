"""What a whole torch module may name: classes and functions of torch.nn that do no harm to whoever loads the file.

The file is handed out again and its readers unpickle it, so that every name here was looked at: making an object
of these classes, filling it and calling these functions computes, and nothing else. Left out: the Lazy classes,
which have no weights until they are used; DistributedDataParallel, which opens a process group; classes that
torch makes up while it runs (torch.nn.utils.parametrize); torch.fx, which runs source code.
A test compares the table with the installed torch.
"""

from __future__ import annotations

_BY_FILE = {
    "activation": (
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish "
        "MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink "
        "Softsign Tanh Tanhshrink Threshold"
    ),
    "adaptive": "AdaptiveLogSoftmaxWithLoss",
    "batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    "channelshuffle": "ChannelShuffle",
    "container": "Container ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "distance": "CosineSimilarity PairwiseDistance",
    "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
    "flatten": "Flatten Unflatten",
    "fold": "Fold Unfold",
    "instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "loss": (
        "BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss HingeEmbeddingLoss "
        "HuberLoss KLDivLoss L1Loss LinearCrossEntropyLoss MSELoss MarginRankingLoss MultiLabelMarginLoss "
        "MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss NLLLoss2d PoissonNLLLoss SmoothL1Loss SoftMarginLoss "
        "TripletMarginLoss TripletMarginWithDistanceLoss"
    ),
    "module": "Module",
    "normalization": "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "padding": (
        "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d "
        "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d "
        "ZeroPad3d"
    ),
    "pixelshuffle": "PixelShuffle PixelUnshuffle",
    "pooling": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
        "AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d "
        "LPPool3d MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "rnn": "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase",
    "sparse": "Embedding EmbeddingBag",
    "transformer": "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer",
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}

MODULE_CLASSES: frozenset[tuple[str, str]] = frozenset(
    (f"torch.nn.modules.{file}", name) for file, names in _BY_FILE.items() for name in names.split()
) | {("torch.nn.parallel.data_parallel", "DataParallel")}

_ACTIVATIONS = (
    "celu elu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax mish normalize relu relu6 selu sigmoid silu "
    "softmax softsign tanh tanhshrink"
)
_NATIVE_ACTIVATIONS = "gelu log_sigmoid softplus softshrink"

FUNCTIONS: frozenset[tuple[str, str]] = frozenset(
    [("torch.nn.functional", name) for name in _ACTIVATIONS.split()]
    + [("torch._C._nn", name) for name in _NATIVE_ACTIVATIONS.split()]
)
"""Functions that a module keeps as a value, such as the activation of a TransformerEncoderLayer."""
