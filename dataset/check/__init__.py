"""Is the data as it should be? All of it before a long run (`python -m dataset.check`), a sample before every run."""

from dataset.check.quick import quick_check, void_alone
from dataset.check.report import Part, Report, check

__all__ = ["Part", "Report", "check", "quick_check", "void_alone"]
