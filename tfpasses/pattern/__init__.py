"""The pattern language and its matcher: describe a sub-graph, find it, learn why it was not found. No TensorFlow."""

from tfpasses.pattern.compiler import Matcher
from tfpasses.pattern.driver import RewriteError, RewriteLoopError, Rule, RuleSet, find
from tfpasses.pattern.language import OpPattern, Pattern, anything, const, op, optional, repeated, roots
from tfpasses.pattern.match import Match, Miss

__all__ = [
    "Match",
    "Matcher",
    "Miss",
    "OpPattern",
    "Pattern",
    "RewriteError",
    "RewriteLoopError",
    "Rule",
    "RuleSet",
    "anything",
    "const",
    "find",
    "op",
    "optional",
    "repeated",
    "roots",
]
