"""Clicks in the page, one by one or many at once: each is a voxel, a step, and answered or told."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.pages import BESIDE, INSIDE, TryIt, infer_requests
from tests.integration.launcher import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

QUICK = (INSIDE, BESIDE, (13, 16, 10), (10, 20, 10), (16, 20, 10))
LONG_PRESS = """async ([clientX, clientY]) => {
  const finger = { pointerType: 'touch', isPrimary: true, button: 0, clientX, clientY };
  const canvas = document.getElementById('canvas');
  canvas.dispatchEvent(new PointerEvent('pointerdown', finger));
  await new Promise(then => setTimeout(then, 700));
  canvas.dispatchEvent(new PointerEvent('pointerup', finger));
}"""
HAS_DOT_INSIDE = "() => deepgrow3d.viewer.niivue.drawBitmap.includes(254)"


def test_quick_clicks_are_answered_one_by_one_and_each_is_a_step(tried: TryIt) -> None:
    tried.go_to("five")
    places = [tried.place_of(index) for index in QUICK]
    asked, held = infer_requests(tried.page), tried.held("**/infer/**")
    for place in places:
        tried.click_at(place)
    tried.choose("liver")
    tried.click_at(places[0])
    held.wait_for(tried.page, 2)
    tried.choose("spleen")
    assert tried.page.evaluate(HAS_DOT_INSIDE)
    assert [request["foreground"] for request in asked] == [[list(QUICK[0])], [list(QUICK[0])]]
    held.release()
    tried.page.wait_for_function("() => !deepgrow3d.structures().some(one => one.isWaiting)")
    assert tried.wait() != ""
    expect(tried.page.locator("#told")).not_to_have_class("fault")
    assert tried.clicks("liver") == [list(QUICK[0])]
    for count in range(len(QUICK), 0, -1):
        assert tried.clicks() == [list(index) for index in QUICK[:count]]
        tried.press("Undo")
    assert tried.painted()[QUICK[0]] == 6


def test_a_structure_is_chosen_though_an_answer_arrives_while_it_is_pressed(tried: TryIt) -> None:
    tried.go_to("five")
    held, place = tried.held("**/infer/**"), tried.place_of(INSIDE)
    tried.click_at(place)
    held.wait_for(tried.page, 1)
    liver = tried.page.get_by_role("option", name="liver", exact=True)
    liver.hover()
    tried.page.mouse.down()
    held.release()
    assert tried.wait().startswith("spleen: 1 click, ")
    tried.page.mouse.up()
    expect(liver).to_have_attribute("aria-selected", "true")


def test_undo_takes_back_only_the_click_that_is_not_answered_yet(tried: TryIt) -> None:
    tried.go_to("five")
    tried.click_voxel(INSIDE)
    first = tried.painted()
    held, place = tried.held("**/infer/**"), tried.place_of(BESIDE)
    tried.click_at(place)
    held.wait_for(tried.page, 1)
    assert tried.press("Undo") == "spleen: 1 click"
    held.release()
    tried.page.wait_for_timeout(1000)
    assert tried.clicks() == [list(INSIDE)]
    np.testing.assert_array_equal(tried.painted(), first)


def test_a_refused_click_is_told_and_in_none_of_the_next_ones(tried: TryIt) -> None:
    tried.go_to("five")
    held, places = tried.held("**/infer/**"), [tried.place_of(index) for index in (INSIDE, BESIDE)]
    tried.click_at(places[0])
    held.wait_for(tried.page, 1)
    held.routes.pop().fulfill(status=503, json={"detail": "Busy."})
    assert tried.wait() == "Busy."
    for place in places:
        tried.click_at(place)
    held.wait_for(tried.page, 1)
    held.routes.pop().fulfill(status=503, json={"detail": "Busy."})
    held.wait_for(tried.page, 1)
    held.release()
    tried.page.wait_for_function("() => !deepgrow3d.structures().some(one => one.isWaiting)")
    assert tried.wait().startswith("spleen: 1 click, ")
    assert tried.clicks() == [list(BESIDE)]


def test_a_click_sends_the_image_to_the_graphics_card_once_at_most(tried: TryIt) -> None:
    tried.go_to("nine")
    tried.page.evaluate("""() => {
      const niivue = deepgrow3d.viewer.niivue, update = niivue.updateGLVolume.bind(niivue);
      globalThis.uploads = 0;
      niivue.updateGLVolume = () => { uploads++; update(); };
    }""")
    tried.click_voxel(INSIDE)
    tried.choose("liver")
    tried.page.get_by_label("Overlay").fill("0.8")
    assert tried.page.evaluate("() => [uploads, deepgrow3d.viewer.niivue.drawOpacity]") == [0, 0.8]


def test_a_tap_of_a_finger_is_a_click(chromium: Browser, server: Server) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    tried = TryIt(context.new_page(), server.url)
    tried.go_to("nine")
    x, y = tried.place_of(INSIDE)
    asked = infer_requests(tried.page)
    for _ in range(2):  # the second one follows at once, and changes no contrast
        tried.page.touchscreen.tap(x, y)
    tried.page.wait_for_timeout(300)
    assert tried.wait().startswith("spleen: 1 click, ")
    assert [request["foreground"] for request in asked] == [[list(INSIDE)]] * 2
    assert tried.page.evaluate("() => deepgrow3d.viewer.contrast") == [-160, 240]
    with tried.page.expect_response(lambda answer: "/infer/" in answer.url):
        tried.page.evaluate(LONG_PRESS, list(tried.place_of(BESIDE)))
    assert tried.wait().startswith("spleen: 2 clicks, ")
    assert asked[-1]["background"] == [list(BESIDE)]
    tried.save_button().tap()
    assert tried.wait() == "Saved: spleen."
    context.close()
