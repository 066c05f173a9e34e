# The topic of `lakeops`'s alerts and of CloudWatch's alarms.

variable "name" { type = string }
variable "key_arn" { type = string }
variable "addresses" { type = set(string) }

data "aws_caller_identity" "this" {}

resource "aws_sns_topic" "this" {
  name              = var.name
  kms_master_key_id = var.key_arn
}

data "aws_iam_policy_document" "this" {
  statement {
    sid       = "Alarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }
}

resource "aws_sns_topic_policy" "this" {
  arn    = aws_sns_topic.this.arn
  policy = data.aws_iam_policy_document.this.json
}

resource "aws_sns_topic_subscription" "mail" {
  for_each  = var.addresses
  topic_arn = aws_sns_topic.this.arn
  protocol  = "email"
  endpoint  = each.key
}

output "arn" { value = aws_sns_topic.this.arn }
