"""Written forms as they are read aloud, and where each word was in the original."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.spoken_forms import spoken_forms

FORMS = (
    *(("en", "$5.50", "5 dollars and 50 cents"), ("en", "€1,234.00", "1,234 euros")),
    *(("en", "£0.01", "1 penny"), ("en", "$1", "1 dollar"), ("en-US", "¥300", "300 yen")),
    *(("de", "5,50 €", "5 Euro 50 Cent"), ("de-DE", "1.234 €", "1.234 Euro")),
    *(("fr", "20 000 €", "20 000 euros"), ("es", "$3.20", "3 dólares con 20 centavos")),
    ("it", "€7,01", "7 euro e 1 centesimo"),
    *(("en", "5 km", "5 kilometers"), ("en", "1 kg", "1 kilogram")),
    *(("en", "20 °C", "20 degrees Celsius"), ("fr", "90 km/h", "90 kilomètres heure")),
    *(("en", "2026-11-29", "November 29, 2026"), ("de", "2026-03-01", "1. März 2026")),
    *(("es", "2026-05-03", "3 de mayo de 2026"), ("en", "10-12", "10 to 12")),
    ("en", "john.doe+x@my-site.org", "john dot doe plus x at my dash site dot org"),
    ("en", "https://www.example.com/a_b/?q=1#top", "example dot com slash a underscore b"),
    ("de", "www.beispiel.de", "beispiel Punkt de"),
    *(("en", "555-1234", "5 5 5, 1 2 3 4"), ("en", "(555) 123-4567", "5 5 5, 1 2 3, 4 5 6 7")),
    ("en", "+44 20 7946 0958", "plus 4 4, 2 0, 7 9 4 6, 0 9 5 8"),
    *(("en", "e.g.", "for example"), ("de", "z. B.", "zum Beispiel"), ("fr", "Mme", "Madame")),
    *(("es", "Sra.", "señora"), ("it", "ecc.", "eccetera")),
)
UNCHANGED = (
    "3.14",
    "v2.0",
    "24/7",
    "10:30",
    "1,234,567",
    "C-3PO",
    "1984-85-86",
    "and/or",
    "Nr",
    "§ 5",
)


@pytest.mark.parametrize(("language", "written", "spoken"), FORMS)
def test_form_is_read_as_a_person_would(language: str, written: str, spoken: str) -> None:
    text = f"It is {written}, you know."
    forms = spoken_forms(text, language)
    assert forms.text == f"It is {spoken}, you know."
    assert forms.original_end(len("It is")) == len("It is")
    assert forms.original_end(len(f"It is {spoken}")) == len(f"It is {written}")
    assert forms.original_end(len(forms.text)) == len(text)
    first = len("It is " + spoken.split()[0])  # its words are one
    assert forms.original_end(first) == len(f"It is {written}")


@pytest.mark.parametrize("written", UNCHANGED)
def test_figures_and_signs_that_engines_read_stay(written: str) -> None:
    assert spoken_forms(f"So {written} it is", "en").text == f"So {written} it is"


@pytest.mark.parametrize("language", [None, "", "ja", "xx-YY"])
def test_unknown_language_changes_nothing(language: str | None) -> None:
    assert spoken_forms("It is $5 at me@x.org", language) == ("It is $5 at me@x.org", ())


@given(
    st.text(alphabet="ab1 .,-/$€@:kmg\u00e9", max_size=40),
    st.sampled_from(("en", "de", "fr", "es", "it")),
)
def test_positions_grow_and_stay_within_the_original(text: str, language: str) -> None:
    forms = spoken_forms(text, language)
    ends = [forms.original_end(n) for n in range(len(forms.text) + 1)]
    assert ends == sorted(ends)
    assert not ends or (ends[0] >= 0 and ends[-1] == len(text))
    position = 0
    rebuilt = ""
    for start, end, first, last in forms.spans:
        rebuilt += forms.text[position:start] + text[first:last]
        position = end
    assert rebuilt + forms.text[position:] == text
