"""Where passes are found, and what is refused."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import attrs
import pytest

from tfpasses.manager import Contract, Effect, Pass, RegistryError, find_pass, pass_names, register, registered_passes, registry

EXACT = Contract(Effect.EXACT)


def make(name, **attributes):
    return attrs.frozen(type("Made", (Pass,), {"name": name, "contract": EXACT, "__module__": __name__, **attributes}))


def entry(name, value, distribution):
    point = EntryPoint(name, value, registry.GROUP)
    vars(point).update(dist=SimpleNamespace(name=distribution))
    return point


def announce(monkeypatch, *entries):
    monkeypatch.setattr(registry, "announced", lambda: registry.without_clashes(entries))


@attrs.frozen
class Announced(Pass):
    name = "announced"
    contract = EXACT


class NotAPass:
    name = "not-a-pass"


@attrs.frozen
class WithoutContract(Pass):
    name = "without-contract"


def test_a_registered_pass_is_found():
    cls = register(make("mine"))
    assert find_pass("mine") is cls
    assert "mine" in pass_names()
    assert registered_passes()["mine"] is cls


def test_the_shipped_pass_is_found_by_its_entry_point():
    assert find_pass("fold-batch-norms").__name__ == "FoldBatchNorms"


def test_names_are_sorted():
    register(make("zz"))
    register(make("aa"))
    assert pass_names() == sorted(pass_names())


def test_an_unknown_pass_is_refused_with_a_suggestion():
    with pytest.raises(RegistryError, match=r"^unknown pass 'fold-batch-norm'; did you mean fold-batch-norms\?$"):
        find_pass("fold-batch-norm")


def test_an_unknown_pass_like_no_other_is_refused_with_the_known_ones(monkeypatch):
    announce(monkeypatch)
    monkeypatch.setattr(registry, "_registered", {"b": make("b"), "a": make("a")})
    with pytest.raises(RegistryError, match=r"^unknown pass 'xyz'; known are a, b$"):
        find_pass("xyz")
    with pytest.raises(RegistryError, match=r"^unknown pass 'xyz'; known are a, b, cle$"):
        find_pass("xyz", ["cle"])


def test_where_no_pass_is_known_the_message_says_so(monkeypatch):
    announce(monkeypatch)
    monkeypatch.setattr(registry, "_registered", {})
    with pytest.raises(RegistryError, match="known are none"):
        find_pass("xyz")


def test_a_class_without_contract_is_refused():
    with pytest.raises(
        RegistryError, match=r":WithoutContract: a pass is a subclass of Pass, an attrs class with a `name` and a `contract`"
    ):
        register(WithoutContract)


def test_a_class_without_name_is_refused():
    with pytest.raises(RegistryError, match="with a `name`"):
        register(attrs.frozen(type("Nameless", (Pass,), {"contract": EXACT})))


def test_a_class_that_is_no_attrs_class_is_refused():
    with pytest.raises(RegistryError, match="an attrs class"):
        register(type("Plain", (Announced,), {"name": "plain"}))


def test_a_class_that_is_no_pass_is_refused():
    with pytest.raises(RegistryError, match="a subclass of Pass"):
        register(NotAPass)


def test_two_passes_of_one_name_are_refused_with_both_named():
    register(make("mine", __qualname__="First"))
    with pytest.raises(RegistryError, match=r"two passes are named mine: \S+:First and \S+:Second; rename one"):
        register(make("mine", __qualname__="Second"))


def test_the_same_class_again_is_taken_as_a_reload():
    register(make("mine"))
    again = register(make("mine"))
    assert find_pass("mine") is again


def test_an_announced_pass_is_found(monkeypatch):
    announce(monkeypatch, entry("announced", f"{__name__}:Announced", "theirs"))
    monkeypatch.setitem(__import__("sys").modules, __name__, SimpleNamespace(Announced=Announced))
    assert find_pass("announced") is Announced


def test_two_distributions_that_announce_one_name_are_both_named(monkeypatch):
    announce(monkeypatch, entry("p", "a:A", "first-dist"), entry("p", "b:B", "second-dist"))
    with pytest.raises(RegistryError, match=r"^pass p is announced by two distributions, first-dist and second-dist; uninstall one$"):
        find_pass("p")


def test_two_distributions_that_announce_the_same_object_clash_too(monkeypatch):
    announce(monkeypatch, entry("p", "a:A", "first-dist"), entry("p", "a:A", "second-dist"))
    with pytest.raises(RegistryError, match="first-dist and second-dist"):
        pass_names()


def test_one_distribution_seen_twice_is_no_clash(monkeypatch):
    announce(monkeypatch, entry("p", "a:A", "dist"), entry("p", "a:A", "dist"))
    assert "p" in pass_names()


def load(monkeypatch, name, value):
    announce(monkeypatch, entry(name, f"a_module_of_theirs:{value}", "theirs"))
    module = SimpleNamespace(Announced=Announced, NotAPass=NotAPass, WithoutContract=WithoutContract)
    monkeypatch.setitem(__import__("sys").modules, "a_module_of_theirs", module)
    return find_pass(name)


def test_a_registered_and_an_announced_pass_of_one_name_clash(monkeypatch):
    register(make("announced", __qualname__="Mine"))
    with pytest.raises(
        RegistryError, match=r"two passes are named announced: \S+:Mine and a_module_of_theirs:Announced of distribution theirs"
    ):
        load(monkeypatch, "announced", "Announced")


def test_an_announced_pass_that_cannot_be_imported_names_its_distribution(monkeypatch):
    with pytest.raises(RegistryError, match=r"^pass p of distribution theirs cannot be imported: AttributeError") as caught:
        load(monkeypatch, "p", "Missing")
    assert isinstance(caught.value.__cause__, AttributeError)


def test_an_announced_module_that_raises_names_its_distribution(monkeypatch, tmp_path):
    (tmp_path / "a_broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    announce(monkeypatch, entry("p", "a_broken_module:P", "theirs"))
    with pytest.raises(RegistryError, match=r"^pass p of distribution theirs cannot be imported: ZeroDivisionError"):
        find_pass("p")


@pytest.mark.parametrize("value", ["NotAPass", "WithoutContract"])
def test_an_announced_object_that_is_no_pass_names_its_distribution(monkeypatch, value):
    with pytest.raises(RegistryError, match=rf"entry point p of distribution theirs: a_module_of_theirs:{value} is no pass"):
        load(monkeypatch, "p", value)


def test_an_announced_pass_of_another_name_is_refused(monkeypatch):
    with pytest.raises(RegistryError, match="entry point other of distribution theirs leads to a pass named announced"):
        load(monkeypatch, "other", "Announced")
