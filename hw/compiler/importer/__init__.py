"""ONNX QDQ in, integer graph out: the one door for networks from elsewhere."""

from hw.compiler.importer.door import Imported, import_onnx
from hw.compiler.importer.errors import Refused
from hw.compiler.importer.judge import judge, worst

__all__ = ["Imported", "Refused", "import_onnx", "judge", "worst"]
