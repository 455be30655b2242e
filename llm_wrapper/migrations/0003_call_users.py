from django.db import migrations
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce


def name_who_asked(apps, schema_editor):
    """Calls made before they had a user of their own get the one whose message they answered, else the chat's."""
    LLMCall = apps.get_model("llm_wrapper", "LLMCall")
    Message = apps.get_model("llm_wrapper", "Message")
    database = schema_editor.connection.alias
    asked = Message.objects.using(database).filter(turn=OuterRef("turn"), type="user").order_by("position")
    owner = apps.get_model("llm_wrapper", "Turn").objects.using(database).filter(pk=OuterRef("turn"))
    user = Coalesce(Subquery(asked.values("user")[:1]), Subquery(owner.values("chat__user")[:1]))
    LLMCall.objects.using(database).filter(user=None).update(user=user)


class Migration(migrations.Migration):
    dependencies = [("llm_wrapper", "0002_chats_and_money")]

    operations = [migrations.RunPython(name_who_asked, migrations.RunPython.noop, elidable=True)]
