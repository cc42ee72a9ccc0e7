"""Every error a caller may want to catch.

SlimfaceError
├── UsageError      (ValueError)    an option or argument does not make sense            exit 2
├── RecipeError     (ValueError)    a recipe or a spec breaks a rule                     exit 2
├── DataError       (ValueError)    a picture, annotation or prediction breaks its format
├── CheckpointError (ValueError)    a weight file is broken, foreign, or does not fit
├── MissingError    (RuntimeError)  a file, an optional package or a device is not there
├── TraceError      (ValueError)    channels of a model cannot be followed or cut
├── BudgetError     (ValueError)    no allocation meets the budget
├── ParityError     (RuntimeError)  a file disagrees with the model it came from
└── ProtocolError   (ValueError)    results of different protocols were about to be mixed

Every message says what is wrong, where, by which rule, and on its last line what to do now.
"""


class SlimfaceError(Exception):
    """Root of the tree; the command line shows these without a traceback."""

    exit_code = 1


class UsageError(SlimfaceError, ValueError):
    """An option or argument does not make sense."""

    exit_code = 2


class RecipeError(SlimfaceError, ValueError):
    """A recipe or a spec breaks a rule."""

    exit_code = 2


class DataError(SlimfaceError, ValueError):
    """A picture, an annotation or a prediction breaks its format."""


class CheckpointError(SlimfaceError, ValueError):
    """A weight file is broken, foreign, or does not fit the model."""


class MissingError(SlimfaceError, RuntimeError):
    """A file, an optional package or a device is not there."""


class TraceError(SlimfaceError, ValueError):
    """The channels of a model cannot be followed or cut."""


class BudgetError(SlimfaceError, ValueError):
    """No allocation meets the budget."""


class ParityError(SlimfaceError, RuntimeError):
    """A file disagrees with the model it came from."""


class ProtocolError(SlimfaceError, ValueError):
    """Results of different protocols were about to be mixed."""
